"""What runs came to: observations, trade-offs, and what papers report."""
