"""What counts: commits, and the one step that makes a result visible."""
