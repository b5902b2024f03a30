"""Factories that a user names: how they are found, and what they import from beside themselves."""
