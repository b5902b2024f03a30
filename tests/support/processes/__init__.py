"""Processes and repositories that tests start and make."""
