"""Plan, check and train sparse iso-FLOP networks, exact to the MAC.

    import iftplan as ift

    model = ift.read_model("zoo:resnet18-cifar")
    plan = ift.plan(model, "wide", "3/4")
    print(plan)
    ift.save(plan, "wide75.json")

Names are loaded when they are first used, so that importing the package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
