"""Tests of the families: what is derived, and how it is solved in whole numbers."""
