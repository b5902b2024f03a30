"""Tests of planning whole models."""
