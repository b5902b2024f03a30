"""Tests of scaling laws: every published figure, fits to published runs, and what laws answer."""
