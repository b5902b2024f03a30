"""The bundled reference architectures: the builders of what `iftplan.models.zoo` lists.

They are plain PyTorch, and their classes, modules and parameters have the names that transformers gives them: plans
and checkpoints hold these names, and weights that were trained with transformers can be loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from iftplan.models.zoo.entries import ZOO, ZooEntry
from iftplan.nn.sources.zoo.bert import bert_small
from iftplan.nn.sources.zoo.botnet import botnet50, botnet50_cifar
from iftplan.nn.sources.zoo.deeplabv3plus import deeplabv3plus_r18
from iftplan.nn.sources.zoo.digits import digits_cnn
from iftplan.nn.sources.zoo.gpt2 import gpt3_1_3b, gpt3_medium, gpt3_small, gpt3_small_2048, gpt_char
from iftplan.nn.sources.zoo.mobilenetv2 import mobilenetv2, mobilenetv2_cifar
from iftplan.nn.sources.zoo.mobilevit import mobilevit_s, mobilevit_s_cifar
from iftplan.nn.sources.zoo.resnet import (
    resnet8_cifar,
    resnet18,
    resnet18_cifar,
    resnet20_cifar,
    resnet34,
    resnet34_cifar,
    resnet50,
)
from iftplan.nn.sources.zoo.retinanet import retinanet_r18
from iftplan.nn.sources.zoo.vit import vit_b16


@dataclass(frozen=True, slots=True)
class Architecture:
    """A zoo entry with the function that builds it, on whichever device is the current default."""

    entry: ZooEntry
    build: Callable[[], nn.Module]


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        name: Architecture(ZOO[name], build)
        for name, build in {
            "resnet18-cifar": resnet18_cifar,
            "resnet34-cifar": resnet34_cifar,
            "resnet8-cifar": resnet8_cifar,
            "resnet20-cifar": resnet20_cifar,
            "mobilenetv2-cifar": mobilenetv2_cifar,
            "mobilevit-s-cifar": mobilevit_s_cifar,
            "botnet50-cifar": botnet50_cifar,
            "digits-cnn": digits_cnn,
            "resnet18": resnet18,
            "resnet34": resnet34,
            "resnet50": resnet50,
            "mobilenetv2": mobilenetv2,
            "mobilevit-s": mobilevit_s,
            "botnet50": botnet50,
            "retinanet-r18": retinanet_r18,
            "deeplabv3plus-r18": deeplabv3plus_r18,
            "bert-small": bert_small,
            "gpt3-small": gpt3_small,
            "gpt3-small-2048": gpt3_small_2048,
            "gpt3-medium": gpt3_medium,
            "gpt3-1.3b": gpt3_1_3b,
            "gpt-char": gpt_char,
            "vit-b16": vit_b16,
        }.items()
    }
)

__all__ = ["ARCHITECTURES", "Architecture"]
