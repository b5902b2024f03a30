"""Commands that train, and time, what was planned."""
