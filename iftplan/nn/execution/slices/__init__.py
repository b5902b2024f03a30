"""Kernels for few columns, as in decoding: output rows in the lanes of registers, every kept weight read once."""
