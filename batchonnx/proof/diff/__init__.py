"""Two results side by side: their rows joined on disk, in memory that is bounded."""
