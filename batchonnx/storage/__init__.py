"""Where bytes are: paths and URLs, listing, opening. Has never heard of rows."""
