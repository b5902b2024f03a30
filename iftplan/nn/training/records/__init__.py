"""What a run leaves behind: metrics, checkpoints, its ledger, and whose directory it is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
