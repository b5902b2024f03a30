"""Tests of zeros among activations."""
