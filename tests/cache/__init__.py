"""Tests of checks: configuration, verdicts, the pytest plugin."""
