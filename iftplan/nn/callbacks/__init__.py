"""Sparse training inside the trainers of other libraries, each of which is imported only with its callback."""
