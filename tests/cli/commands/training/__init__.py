"""Tests of the commands that train."""
