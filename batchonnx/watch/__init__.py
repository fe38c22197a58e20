"""Who watches a run besides people: logs, metrics, traces, lineage, notifications. None can end it."""
