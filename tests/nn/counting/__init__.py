"""Tests of counting multiply-accumulates."""
