"""Tests of weights that are carried over."""
