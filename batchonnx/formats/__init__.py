"""File formats: what a footer says, and rows as Arrow record batches. One module a format."""
