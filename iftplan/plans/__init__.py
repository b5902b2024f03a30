"""Plans: what is asked of one, how it is made, and the value that holds it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
