"""A result as one HTML file: gathered from its records and files, drawn, and put together."""
