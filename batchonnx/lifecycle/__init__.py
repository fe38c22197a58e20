"""A model's life before a job: what it is worth, shown by running it; where it came from."""
