"""A job on a Ray cluster: handed over, looked at, waited for, stopped; through Ray's Jobs API."""
