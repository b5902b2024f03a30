"""Engines that count one forward pass, each by means of its own."""
