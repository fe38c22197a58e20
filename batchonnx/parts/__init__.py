"""The files of a result: what they are called, written in, and read back as. One module for each format."""
