"""Plan, check and train sparse iso-FLOP networks, exact to the MAC.

    import iftplan as ift

    model = ift.read_model("zoo:resnet18-cifar")
    plan = ift.plan(model, "wide", "3/4")
    print(plan)
    ift.save(plan, "wide75.json")

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from typing import Any

import lazy_loader

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A public name, loaded now, or `__version__`, which is read from the installed package when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("iftplan")
    try:
        return _named(name)
    except AttributeError as error:
        from difflib import get_close_matches

        alike = [known for known in __all__ if known.lower() == name.lower()]
        near = alike or get_close_matches(name, __all__, 1, 0.75)
        if name.startswith("_") or not near:
            raise
        raise AttributeError(f"{error}. Did you mean {near[0]!r}?", name=name) from None
