"""Algorithms that choose masks, one file each."""
