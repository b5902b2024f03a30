"""Tests of commands that check."""
