"""What can be said of a result from its records and files: proof, origin, the gate."""
