"""Tests of errors, units, documents and arguments."""
