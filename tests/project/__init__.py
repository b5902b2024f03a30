"""Tests of what surrounds the code: pages, notebooks, layers, the action, the wheel."""
