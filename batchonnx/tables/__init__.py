"""Delta and Iceberg: which files a table holds at a version, and files that are added in one commit."""
