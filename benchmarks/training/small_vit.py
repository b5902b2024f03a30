"""A ViT for CIFAR-10 that a CPU trains in minutes: two layers of width 64, patches of 4×4.

    iftplan train --recipe cifar10-resnet8 --set plan.model=benchmarks/training/small_vit.py:vit --data DIR …

It has what ResNet-8 has not: feed-forward blocks, which experts can replace. `benchmarks/training/results.py places-vit` trains it.
"""

from torch import nn

from iftplan.nn.sources.zoo.vit import ViTForImageClassification, ViTSizes


def vit() -> nn.Module:
    """The network, for images of 32×32 and ten classes."""
    return ViTForImageClassification(ViTSizes(layers=2, width=64, heads=4, patch=4, side=32), 10)
