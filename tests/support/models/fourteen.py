"""Fourteen published architectures, built from their configurations on any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import transformers as hf
from torch import nn

from iftplan.models.spec import InputSpec

IMAGE = (InputSpec((1, 3, 224, 224)),)
TEXT = (InputSpec((1, 128), "int64"),)
SEQ2SEQ = (
    InputSpec((1, 128), "int64", "input_ids"),
    InputSpec((1, 64), "int64", "decoder_input_ids"),
)


@dataclass(frozen=True)
class Published:
    """A model class with its configuration and the input it is measured on."""

    model: type[nn.Module]
    config: hf.PretrainedConfig
    inputs: tuple[InputSpec, ...]

    def build(self, device: str = "meta") -> nn.Module:
        with torch.device(device):
            return self.model(self.config)


def _resnet(depths: list[int], widths: list[int], layer: str) -> hf.PretrainedConfig:
    return hf.ResNetConfig(depths=depths, hidden_sizes=widths, layer_type=layer, num_labels=1000)


def _llama_1b() -> hf.PretrainedConfig:
    return hf.LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        vocab_size=128256,
        tie_word_embeddings=True,
    )


def _mixtral() -> hf.PretrainedConfig:
    return hf.MixtralConfig(
        hidden_size=512,
        intermediate_size=1792,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        vocab_size=32000,
    )


MODELS: dict[str, Callable[[], Published]] = {
    "resnet18": lambda: Published(
        hf.ResNetForImageClassification, _resnet([2, 2, 2, 2], [64, 128, 256, 512], "basic"), IMAGE
    ),
    "resnet50": lambda: Published(
        hf.ResNetForImageClassification, _resnet([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"), IMAGE
    ),
    "mobilenetv2": lambda: Published(
        hf.MobileNetV2ForImageClassification, hf.MobileNetV2Config(num_labels=1001), IMAGE
    ),
    "mobilevit": lambda: Published(
        hf.MobileViTForImageClassification,
        hf.MobileViTConfig(num_labels=1000),
        (InputSpec((1, 3, 256, 256)),),
    ),
    "vit": lambda: Published(hf.ViTForImageClassification, hf.ViTConfig(num_labels=1000), IMAGE),
    "swin": lambda: Published(hf.SwinForImageClassification, hf.SwinConfig(num_labels=1000), IMAGE),
    "convnext": lambda: Published(
        hf.ConvNextForImageClassification, hf.ConvNextConfig(num_labels=1000), IMAGE
    ),
    "bert": lambda: Published(hf.BertForMaskedLM, hf.BertConfig(), TEXT),
    "gpt2": lambda: Published(hf.GPT2LMHeadModel, hf.GPT2Config(), TEXT),
    "gpt2-medium": lambda: Published(
        hf.GPT2LMHeadModel, hf.GPT2Config(n_embd=1024, n_layer=24, n_head=16), TEXT
    ),
    "llama-1b": lambda: Published(hf.LlamaForCausalLM, _llama_1b(), TEXT),
    "t5-small": lambda: Published(hf.T5ForConditionalGeneration, hf.T5Config(), SEQ2SEQ),
    "mixtral": lambda: Published(hf.MixtralForCausalLM, _mixtral(), TEXT),
    "mamba-130m": lambda: Published(
        hf.MambaForCausalLM, hf.MambaConfig(num_hidden_layers=24, vocab_size=50280), TEXT
    ),
}
