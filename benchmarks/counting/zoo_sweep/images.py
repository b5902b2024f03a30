"""Networks of torchvision, timm and segmentation-models-pytorch."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from zoo_sweep.entry import Entry

SIDE = {"inception": 96, "googlenet": 64, "alexnet": 96, "vit_": 224, "swin": 64, "maxvit": 224, "ssd": 128}
"""torchvision, beginning of a name → the side of its image; 64 for all others."""

QUICK = {
    "resnet18", "mobilenet_v3_small", "densenet121", "shufflenet_v2_x0_5", "efficientnet_b0", "vit_b_16", "swin_t",
    "fcn_resnet50", "fasterrcnn_mobilenet_v3_large_320_fpn", "raft_small", "r3d_18",
    "beit", "convnext", "efficientnet", "levit", "mlp_mixer", "nfnet", "xcit", "coat", "vision_transformer",
    "Unet", "Segformer",
}  # fmt: skip
"""What `--quick` takes of all three."""


def torchvision_entries() -> Iterator[Entry]:
    """All that torchvision lists: classification, detection, segmentation, video, optical flow, quantization."""
    from torchvision import models

    for name in sorted(models.list_models()):
        module = models.get_model_builder(name).__module__

        def build(name: str = name) -> nn.Module:
            names = {"weights": None}
            if (
                "detection" in models.get_model_builder(name).__module__
                or "segmentation" in models.get_model_builder(name).__module__
            ):
                names["weights_backbone"] = None
            if name.startswith(("googlenet", "inception", "quantized_googlenet", "quantized_inception")):
                names["init_weights"] = False  # trunc_normal_ of every layer takes longer than the sweep
            made: nn.Module = models.get_model(name, **names)
            return made

        yield Entry("torchvision", name, build, _torchvision_inputs(name, module), quick=name in QUICK)


def _torchvision_inputs(name: str, module: str) -> tuple[str, ...]:
    if "optical_flow" in module:
        return ("1x3x128x128", "1x3x128x128")
    if ".video" in module:
        big = "mvit" in name or "swin3d" in name or name == "s3d"
        return ("1x3x16x224x224",) if big else ("1x3x8x64x64",)
    if "detection" in module or "segmentation" in module:
        return ("1x3x128x128",)
    plain = name.removeprefix("quantized_")
    side = next((s for start, s in SIDE.items() if plain.startswith(start)), 64)
    return (f"1x3x{side}x{side}",)


SMALL = (
    "atto",
    "femto",
    "pico",
    "zepto",
    "nano",
    "micro",
    "xxs",
    "xxtiny",
    "tiny",
    "mini",
    "xs",
    "xsmall",
    "small",
    "_s",
    "s0",
    "_0",
    "18",
)


def timm_entries() -> Iterator[Entry]:
    """Networks of every module of timm: of the first two kinds that it registers, the one whose name says that it is small."""
    import timm

    for module in sorted(timm.list_modules()):
        kinds: dict[str, list[str]] = {}
        for name in timm.list_models(module=module):
            if not name.startswith("test_"):
                kinds.setdefault(re.split(r"[\d_]", name)[0], []).append(name)
        for names in sorted(kinds.values(), key=len, reverse=True)[:2]:
            name = min(names, key=_size_in_name)

            def build(name: str = name) -> nn.Module:
                made: nn.Module = timm.create_model(name, pretrained=False)
                return made

            yield Entry("timm", name, build, _timm_inputs(name), quick=module in QUICK)


def _size_in_name(name: str) -> tuple[int, int, str]:
    rank = next((k for k, word in enumerate(SMALL) if re.search(rf"{word}(?![a-z])", name)), len(SMALL))
    return rank, len(name), name


def _timm_inputs(name: str) -> tuple[str, ...]:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    channels, height, width = config.input_size if config else (3, 224, 224)
    if config is not None and config.min_input_size is not None:
        _, height, width = config.min_input_size
    elif config is not None and not config.fixed_input_size:
        height = width = min(height, 128)
    return (f"1x{channels}x{height}x{width}",)


ENCODERS = ("resnet18", "mobilenet_v2", "timm-efficientnet-b0")


def segmentation_entries() -> Iterator[Entry]:
    """Every architecture of segmentation-models-pytorch on its usual encoder, some on others."""
    import segmentation_models_pytorch as smp

    for name in (
        "Unet",
        "UnetPlusPlus",
        "MAnet",
        "Linknet",
        "FPN",
        "PSPNet",
        "DeepLabV3",
        "DeepLabV3Plus",
        "PAN",
        "UPerNet",
        "Segformer",
        "DPT",
    ):
        encoders = (
            ("tu-vit_tiny_patch16_224",)
            if name == "DPT"
            else ENCODERS
            if name in ("Unet", "FPN")
            else ENCODERS[:1]
        )
        for encoder in encoders:

            def build(name: str = name, encoder: str = encoder) -> nn.Module:
                made: nn.Module = getattr(smp, name)(encoder_name=encoder, encoder_weights=None, classes=5)
                return made

            side = 224 if name == "DPT" else 128
            called = name if encoder == encoders[0] else f"{name} {encoder}"
            yield Entry("segmentation-models", called, build, (f"1x3x{side}x{side}",), quick=called in QUICK)
