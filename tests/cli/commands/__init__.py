"""Tests of iftplan/cli/commands."""
