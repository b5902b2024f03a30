"""Helpers for training runs and the directories that they leave."""
