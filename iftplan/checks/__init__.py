"""What `iftplan check` does: configuration, measurements, budgets and baselines, and what it found."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
