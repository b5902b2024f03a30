"""Tests of mask structures, of how many there are and of how densities are spread."""
