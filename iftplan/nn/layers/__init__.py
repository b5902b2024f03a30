"""Modules that replace layers in a planned network, and their initial weights."""
