"""When a job runs and for which date: calendar, backfill, a scheduler, rendering for others."""
