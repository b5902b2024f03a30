"""`iftplan bench`: layers side by side, and a machine's profile."""
