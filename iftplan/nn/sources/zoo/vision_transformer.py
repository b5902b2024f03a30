"""ViT-B/16 (arXiv 2010.11929), from transformers' ViT."""

from __future__ import annotations

from torch import nn


def vit_b16() -> nn.Module:
    """ViT-B/16 for 1000 classes at 224×224, classifying by the class token."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
        image_size=224,
        patch_size=16,
        num_labels=1000,
        attn_implementation="sdpa",
    )
    model: nn.Module = ViTForImageClassification(config)
    return model
