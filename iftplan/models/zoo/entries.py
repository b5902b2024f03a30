"""What the bundled zoo holds, without a framework: names, sources and default inputs.

`iftplan.nn.sources.zoo` builds what is listed here; listing must not cost an import of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from iftplan.models.spec import InputSpec


@dataclass(frozen=True, slots=True)
class ZooEntry:
    """One bundled reference architecture.

    Attributes:
        name: what follows `zoo:`.
        description: one line for people.
        source: the paper, and the choice where it leaves one.
        inputs: the inputs that it is counted with unless others are given.
    """

    name: str
    description: str
    source: str
    inputs: tuple[InputSpec, ...]


def _image(height: int, width: int | None = None) -> tuple[InputSpec, ...]:
    return (InputSpec((1, 3, height, width or height)),)


def _tokens(length: int) -> tuple[InputSpec, ...]:
    return (InputSpec((1, length), "int64"),)


_RESNET = "He et al. 2015, arXiv 1512.03385"
_CIFAR_ASSUMED = "CIFAR form assumed: Saxena et al., arXiv 2303.11525, trains one and does not describe it"
_GPT3 = "Brown et al. 2020, arXiv 2005.14165, table 2.1"

ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            ZooEntry(
                "resnet18-cifar",
                "ResNet-18, 3×3 stride-1 stem without pooling, 100 classes, 32×32",
                f"{_RESNET}; CIFAR form as in Saxena et al., arXiv 2303.11525",
                _image(32),
            ),
            ZooEntry(
                "resnet34-cifar",
                "ResNet-34, 3×3 stride-1 stem without pooling, 100 classes, 32×32",
                f"{_RESNET}; CIFAR form as in Saxena et al., arXiv 2303.11525",
                _image(32),
            ),
            ZooEntry(
                "resnet8-cifar",
                "ResNet-8 of width 8 (8, 16, 32), 3×3 stride-1 stem without pooling, 10 classes, 32×32",
                f"{_RESNET}, section 4.2, with 1×1 shortcuts",
                _image(32),
            ),
            ZooEntry(
                "resnet20-cifar",
                "ResNet-20 of width 16 (16, 32, 64), 3×3 stride-1 stem without pooling, 10 classes, 32×32",
                f"{_RESNET}, section 4.2, with 1×1 shortcuts",
                _image(32),
            ),
            ZooEntry(
                "mobilenetv2-cifar",
                "MobileNetV2, multiplier 1.0, first two strides 1, 100 classes, 32×32",
                f"Sandler et al. 2018, arXiv 1801.04381; {_CIFAR_ASSUMED}",
                _image(32),
            ),
            ZooEntry(
                "mobilevit-s-cifar",
                "MobileViT-S, first two strides 1, patches of 2×2, 100 classes, 32×32",
                f"Mehta and Rastegari 2021, arXiv 2110.02178; {_CIFAR_ASSUMED}",
                _image(32),
            ),
            ZooEntry(
                "botnet50-cifar",
                "BotNet-50, 3×3 stride-1 stem without pooling, 100 classes, 32×32",
                f"Srinivas et al. 2021, arXiv 2101.11605; {_CIFAR_ASSUMED}",
                _image(32),
            ),
            ZooEntry(
                "digits-cnn",
                "three 3×3 convolutions of 16, 32 and 32 channels, batch-normalised, 10 classes, 8×8 grey",
                "iftplan's own, for the digits bundled with scikit-learn",
                (InputSpec((1, 1, 8, 8)),),
            ),
            ZooEntry(
                "resnet18",
                "ResNet-18, 1000 classes, 224×224",
                _RESNET,
                _image(224),
            ),
            ZooEntry(
                "resnet34",
                "ResNet-34, 1000 classes, 224×224",
                _RESNET,
                _image(224),
            ),
            ZooEntry(
                "resnet50",
                "ResNet-50 v1.5 (stride in the 3×3 convolutions), 1000 classes, 224×224",
                _RESNET,
                _image(224),
            ),
            ZooEntry(
                "mobilenetv2",
                "MobileNetV2, multiplier 1.0, 1000 classes, 224×224",
                "Sandler et al. 2018, arXiv 1801.04381",
                _image(224),
            ),
            ZooEntry(
                "mobilevit-s",
                "MobileViT-S, 1000 classes, 256×256",
                "Mehta and Rastegari 2021, arXiv 2110.02178",
                _image(256),
            ),
            ZooEntry(
                "botnet50",
                "BotNet-50: ResNet-50 with self-attention (4 heads) for the last stage's 3×3, 224×224",
                "Srinivas et al. 2021, arXiv 2101.11605",
                _image(224),
            ),
            ZooEntry(
                "retinanet-r18",
                "RetinaNet with ResNet-18 and a feature pyramid of 256 channels, 80 classes, 800×1280",
                "Lin et al. 2017, arXiv 1708.02002, in the sizes of MMDetection",
                _image(800, 1280),
            ),
            ZooEntry(
                "deeplabv3plus-r18",
                "DeepLabV3+ with ResNet-18 v1c at an 8th of the size, 19 classes, 512×1024",
                "Chen et al. 2018, arXiv 1802.02611, in the sizes of MMSegmentation",
                _image(512, 1024),
            ),
            ZooEntry(
                "bert-small",
                "BERT Small: 4 layers, width 512, 8 heads, tied masked-LM head, 128 tokens",
                "Turc et al. 2019, arXiv 1908.08962",
                _tokens(128),
            ),
            ZooEntry(
                "gpt3-small",
                "GPT-3 Small (125 M): 12 layers, width 768, 12 heads, tied head, 1024 tokens",
                _GPT3,
                _tokens(1024),
            ),
            ZooEntry(
                "gpt3-small-2048",
                "GPT-3 Small with the context of GPT-3, 2048 tokens",
                _GPT3,
                _tokens(2048),
            ),
            ZooEntry(
                "gpt3-medium",
                "GPT-3 Medium (350 M): 24 layers, width 1024, 16 heads, tied head, 1024 tokens",
                _GPT3,
                _tokens(1024),
            ),
            ZooEntry(
                "gpt3-1.3b",
                "GPT-3 XL (1.3 B): 24 layers, width 2048, 16 heads of 128, tied head, 1024 tokens",
                f"{_GPT3}; 16 heads, because the table's 24 of 128 do not make 2048",
                _tokens(1024),
            ),
            ZooEntry(
                "gpt-char",
                "a GPT of bytes: 4 layers, width 128, 4 heads, tied head over 256 bytes, 128 tokens",
                "Radford et al. 2019",
                _tokens(128),
            ),
            ZooEntry(
                "vit-b16",
                "ViT-B/16: 12 layers, width 768, 12 heads, 1000 classes, 224×224",
                "Dosovitskiy et al. 2020, arXiv 2010.11929",
                _image(224),
            ),
        )
    }
)
