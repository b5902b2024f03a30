"""Figures: one file per picture, one for their style. Only here is matplotlib imported, and never pyplot."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
