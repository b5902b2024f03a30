"""Tests of reading a model: layers, layouts, couplings of widths."""
