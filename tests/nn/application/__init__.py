"""Tests of plans applied to networks."""
