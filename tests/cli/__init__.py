"""Tests of the command line from end to end."""
