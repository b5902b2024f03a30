"""Tests of what a run is asked for, what it costs and what is doubted about it."""
