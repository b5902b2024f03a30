"""Tests of plans for time."""
