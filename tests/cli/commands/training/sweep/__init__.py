"""Tests of `iftplan sweep` beyond one machine."""
