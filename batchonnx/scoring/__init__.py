"""One shard from file to part: read, encode, predict, decode, write."""
