"""Which settings score a job's rows fastest on this machine: tried on its own rows, within a time."""
