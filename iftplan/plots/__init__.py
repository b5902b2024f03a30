"""Figures: one file per picture, one for their style. Only here is matplotlib imported, and never pyplot."""
