"""Training runs: their settings, schedules, costs and records."""
