"""What every room stands on: errors, numbers as people read them, documents, arguments and their validation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
