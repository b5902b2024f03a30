"""Tests of what runs have shown, and of trade-offs."""
