"""Tests of timing layers."""
