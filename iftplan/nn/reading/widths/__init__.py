"""Widths: the equations between them, their solution, and whether a network runs at others."""
