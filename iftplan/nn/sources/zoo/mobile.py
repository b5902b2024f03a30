"""Small vision networks: MobileNetV2 (arXiv 1801.04381) and MobileViT-S (arXiv 2110.02178)."""

from __future__ import annotations

from torch import nn


def mobilenetv2() -> nn.Module:
    """MobileNetV2 with multiplier 1.0 for 1000 classes at 224×224."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    model: nn.Module = MobileNetV2ForImageClassification(
        MobileNetV2Config(num_labels=1000, depth_multiplier=1.0)
    )
    return model


def mobilevit_s() -> nn.Module:
    """MobileViT-S for 1000 classes at 256×256; transformers' defaults are this size."""
    from transformers import MobileViTConfig, MobileViTForImageClassification

    model: nn.Module = MobileViTForImageClassification(MobileViTConfig(num_labels=1000, image_size=256))
    return model
