"""What other systems run at the ticks of a schedule; one module for each."""
