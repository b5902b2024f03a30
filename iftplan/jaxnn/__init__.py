"""The only part of iftplan that imports JAX: models counted and read into specs, plans applied to them, and masked training.

Names are loaded when they are first used.
"""

import lazy_loader

from iftplan.base.attributes import suggesting

_get, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = suggesting(_get, __all__)
