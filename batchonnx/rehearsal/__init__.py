"""A job tried on some of its own rows: what a run will take, which settings suit it, what it survives."""
