"""Passes over data that look at activations: how many are zero, and what a selection of them changes."""
