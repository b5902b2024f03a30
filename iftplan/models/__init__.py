"""Layers and networks as values: what they are, what they cost, how they are written, and where they come from."""
