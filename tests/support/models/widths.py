"""Small models of every kind of coupling, for the tests of widths and of widening."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional

from iftplan.models.spec import InputSpec

IMAGE = (InputSpec((2, 3, 16, 16)),)
LARGER_IMAGE = (InputSpec((2, 3, 64, 64)),)
TOKENS = (InputSpec((2, 11), "int64", "input_ids"),)


def conv(c_in: int, c_out: int, k: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution, normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()
    )


class Residual(nn.Module):
    """A basic block (or, grouped, ResNeXt's) with a projection where shapes change."""

    def __init__(self, c_in: int, c_mid: int, c_out: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(c_in, c_mid, 1), conv(c_mid, c_mid, 3, stride, groups), nn.Conv2d(c_mid, c_out, 1)
        )
        self.shortcut = nn.Identity() if c_in == c_out and stride == 1 else nn.Conv2d(c_in, c_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class Dense(nn.Module):
    """DenseNet: every layer reads all earlier ones."""

    def __init__(self, c_in: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(conv(c_in + i * growth, growth) for i in range(layers))
        self.norm = nn.BatchNorm2d(c_in + layers * growth)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return self.norm(torch.cat(features, 1))


class Shuffle(nn.Module):
    """ShuffleNet V2: half of the channels pass by, the halves are interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(conv(half, half, 1), conv(half, half, 3, 1, half), conv(half, half, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept, changed = x.chunk(2, 1)
        x = torch.cat((kept, self.branch(changed)), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Gated(nn.Module):
    """A gated unit: one projection, two halves."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(functional.silu(gate) * value)


class Attention(nn.Module):
    """Attention as vision transformers write it, with its integers as attributes or read off the shape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = (q * (c // self.heads) ** -0.5) @ k.transpose(-2, -1)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class ByEinsum(Attention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k).softmax(-1)
        return self.out(torch.einsum("nhqk,nkhd->nqhd", scores, v).flatten(2))


class ByBmm(Attention):
    """Heads folded into the batch, as older code has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, c = x.shape
        folded = self.qkv(x).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).flatten(1, 2)
        q, k, v = folded.unbind()
        bias = torch.zeros(1, 1, 1, device=x.device)
        y = torch.bmm(torch.baddbmm(bias, q, k.mT).softmax(-1), v)
        return self.out(y.view(n, self.heads, t, -1).transpose(1, 2).reshape(n, t, c))


class Tokens(nn.Module):
    """Image patches as tokens, a mixer, a classifier."""

    def __init__(self, width: int, mixer: nn.Module) -> None:
        super().__init__()
        self.patch, self.mixer = nn.Conv2d(3, width, 4, 4), mixer
        self.position = nn.Parameter(torch.zeros(1, 16, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.position
        return self.head((x + self.mixer(self.norm(x))).mean(1))


class SelfMultihead(nn.MultiheadAttention):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, x, x)[0]


def classifier(*features: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))


def vgg() -> nn.Module:
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        *(conv(3, 8), conv(8, 12), pool, conv(12, 16), nn.Flatten()),
        *(nn.Linear(16 * 64, 24), nn.ReLU(), nn.Linear(24, 7)),
    )


def mobile() -> nn.Module:
    def inverted(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(
            conv(c_in, 4 * c_in, 1), conv(4 * c_in, 4 * c_in, 3, 1, 4 * c_in), conv(4 * c_in, c_out, 1)
        )

    return classifier(conv(3, 8), inverted(8, 12), inverted(12, 16), channels=16)


def upsampler() -> nn.Module:
    """Pixel shuffle, a transposed convolution and group normalisation: shapes that must keep dividing."""
    up = nn.ConvTranspose2d(6, 8, 2, 2)
    return classifier(conv(3, 24), nn.PixelShuffle(2), up, nn.GroupNorm(4, 8), channels=8)


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    return Tokens(16, nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))


HAND_WRITTEN: dict[str, Callable[[], nn.Module]] = {
    "vgg, flatten into a classifier": vgg,
    "residual": lambda: classifier(conv(3, 8), Residual(8, 4, 8), Residual(8, 6, 12, 2), channels=12),
    "grouped": lambda: classifier(conv(3, 8), Residual(8, 12, 8, groups=4), channels=8),
    "depthwise": mobile,
    "depthwise multiplier": lambda: classifier(conv(3, 8), nn.Conv2d(8, 24, 3, groups=8), channels=24),
    "squeeze and excite": lambda: classifier(conv(3, 16), SqueezeExcite(16, 4), channels=16),
    "concatenation": lambda: classifier(conv(3, 8), Dense(8, 5, 3), channels=23),
    "shuffle": lambda: classifier(conv(3, 12), Shuffle(12), Shuffle(12), channels=12),
    "gated": lambda: Tokens(16, Gated(16, 20)),
    "attention": lambda: Tokens(16, Attention(16, 4)),
    "attention by einsum": lambda: Tokens(16, ByEinsum(16, 4)),
    "attention by bmm": lambda: Tokens(16, ByBmm(16, 4)),
    "multi-head attention": lambda: Tokens(16, SelfMultihead(16, 4, batch_first=True)),
    "transformer encoder": encoder,
    "pixel shuffle, transposed, group norm": upsampler,
}


def _vision(
    config: Callable[..., Any], model: Callable[..., nn.Module], **options: Any
) -> Callable[[], nn.Module]:
    return lambda: model(config(num_labels=7, **options))


T = transformers
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}

TRANSFORMERS: dict[str, tuple[Callable[[], nn.Module], tuple[InputSpec, ...]]] = {
    "ResNet basic": (
        _vision(
            T.ResNetConfig,
            T.ResNetForImageClassification,
            depths=[1, 2],
            embedding_size=8,
            hidden_sizes=[8, 12],
            layer_type="basic",
        ),
        IMAGE,
    ),
    "ResNet bottleneck": (
        _vision(
            T.ResNetConfig,
            T.ResNetForImageClassification,
            depths=[1, 2],
            embedding_size=8,
            hidden_sizes=[16, 32],
        ),
        IMAGE,
    ),
    "MobileNetV2": (_vision(T.MobileNetV2Config, T.MobileNetV2ForImageClassification), LARGER_IMAGE),
    "MobileViT": (
        _vision(
            T.MobileViTConfig,
            T.MobileViTForImageClassification,
            hidden_sizes=[16, 24, 32],
            image_size=64,
            neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
        ),
        LARGER_IMAGE,
    ),
    "ConvNeXt": (
        _vision(
            T.ConvNextConfig,
            T.ConvNextForImageClassification,
            depths=[1, 2],
            hidden_sizes=[8, 12],
            num_stages=2,
        ),
        IMAGE,
    ),
    "ViT": (
        _vision(T.ViTConfig, T.ViTForImageClassification, image_size=16, patch_size=4, **SMALL),
        IMAGE,
    ),
    "Swin": (
        _vision(
            T.SwinConfig,
            T.SwinForImageClassification,
            image_size=56,
            embed_dim=12,
            depths=[2, 2],
            num_heads=[3, 6],
        ),
        (InputSpec((1, 3, 56, 56)),),
    ),
    "BERT": (lambda: T.BertForMaskedLM(T.BertConfig(vocab_size=50, **SMALL)), TOKENS),
    "DistilBERT": (
        lambda: T.DistilBertForSequenceClassification(
            T.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48)
        ),
        TOKENS,
    ),
    "GPT-2": (
        lambda: T.GPT2LMHeadModel(T.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)),
        TOKENS,
    ),
    "GPT-2, many layers": (
        lambda: T.GPT2LMHeadModel(T.GPT2Config(vocab_size=50, n_embd=16, n_layer=9, n_head=2)),
        TOKENS,
    ),
    "Llama, grouped queries": (
        lambda: T.LlamaForCausalLM(T.LlamaConfig(vocab_size=50, num_key_value_heads=2, **SMALL)),
        TOKENS,
    ),
    "T5": (
        lambda: T.T5ForConditionalGeneration(
            T.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        ),
        (*TOKENS, InputSpec((2, 5), "int64", "decoder_input_ids")),
    ),
}

# Those with heads, for which it matters what attention keeps.
HEADED = {
    *("attention", "attention by bmm", "attention by einsum", "multi-head attention", "transformer encoder"),
    *("MobileViT", "ViT", "Swin", "BERT", "GPT-2", "Llama, grouped queries", "T5"),
}

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[InputSpec, ...]]] = {
    **{name: (build, IMAGE) for name, build in HAND_WRITTEN.items()},
    **TRANSFORMERS,
}
