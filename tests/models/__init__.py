"""Tests of networks as values: polynomials, notation, tables."""
