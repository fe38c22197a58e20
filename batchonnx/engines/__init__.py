"""Where workers live, and who hands them their shards."""
