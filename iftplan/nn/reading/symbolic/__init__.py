"""A pass with symbolic sizes: the shapes, the model and what it costs."""
