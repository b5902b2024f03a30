"""What `iftplan check` does: configuration, measurements, budgets and baselines, and what it found."""
