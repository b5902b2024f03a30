"""Compute that depends on the data, or is taken from tokens, channels and caches: values, formulas and their sources.

What is measured on data (`activations`) is called *effective* and never stands for the cost of a forward pass. All else here is
arithmetic: integers and fractions in, integers and fractions out.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
