"""Layers and networks as values: what they are, what they cost, how they are written, and where they come from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
