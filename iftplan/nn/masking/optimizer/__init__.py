"""What masking has to do with an optimizer: its hooks, its state, and who wraps it."""
