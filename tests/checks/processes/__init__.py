"""Tests of what a check reads and remembers."""
