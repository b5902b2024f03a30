"""Counting a pass: what each operator costs, by several engines, and a training step by rule."""
