"""Two results side by side: their rows joined in memory that is bounded."""
