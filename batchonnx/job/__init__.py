"""What was asked for: the job file, validated."""
