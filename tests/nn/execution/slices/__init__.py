"""Tests of computing with what masks keep."""
