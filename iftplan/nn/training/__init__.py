"""Training runs: configuration, data, the loop, checkpoints and what a run writes."""
