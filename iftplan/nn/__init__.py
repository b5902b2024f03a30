"""The only part of iftplan that imports torch: reading, building, measuring and applying plans to networks.

Names are loaded when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
