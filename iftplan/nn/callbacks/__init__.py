"""Sparse training inside the trainers of other libraries; each is imported only when its callback is."""
