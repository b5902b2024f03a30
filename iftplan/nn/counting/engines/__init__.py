"""Engines that count one forward pass, each in its own way."""
