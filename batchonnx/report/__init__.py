"""What people see: progress, summary, plan, predictions."""
