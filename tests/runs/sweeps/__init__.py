"""Tests of grids and of the queue of their trials."""
