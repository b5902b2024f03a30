"""Tests of algorithms that choose masks."""
