"""Trained networks pruned in one shot: where they come from, what they score on data, and how they are written."""
