"""Object stores for tests: a real one, one that lies, faults on the way to them, kills at their moments."""
