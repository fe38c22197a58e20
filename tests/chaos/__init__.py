"""Runs that are killed at any moment, and two that start at once."""
