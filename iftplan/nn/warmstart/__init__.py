"""Trained dense weights carried into a planned network."""
