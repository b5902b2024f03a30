"""The Sparse-IFT families: an equation each, its derivation and closed forms, and one layer solved in whole numbers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
