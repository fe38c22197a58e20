"""A run from its lease to its publication, whatever the engine."""
