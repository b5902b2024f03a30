"""Layers that stand in a planned network in the place of others, and the weights they begin with."""
