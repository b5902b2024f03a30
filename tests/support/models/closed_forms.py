"""Multiply-accumulates of published architectures, by arithmetic on their configuration's numbers alone.

Nothing here looks at a module: each function is what one would work out on paper from the architecture's
description. `c` is the configuration, batch is 1.
"""

from __future__ import annotations

from itertools import pairwise
from math import ceil
from typing import Any


def _conv(c_in: int, c_out: int, kernel: int, side: int) -> int:
    """A convolution with `side × side` outputs."""
    return c_in * c_out * kernel**2 * side**2


def resnet(c: Any, side: int) -> int:
    """7×7 stem, pooled to a quarter; stages of basic or bottleneck blocks; stride in the (first) 3×3."""
    macs = _conv(c.num_channels, c.embedding_size, 7, side // 2)
    width, side = c.embedding_size, side // 4
    for stage, (out, depth) in enumerate(zip(c.hidden_sizes, c.depths, strict=True)):
        for block in range(depth):
            stride = 2 if block == 0 and stage > 0 else 1
            before, side = side, side // stride
            if c.layer_type == "basic":
                macs += _conv(width, out, 3, side) + _conv(out, out, 3, side)
            else:
                neck = out // 4
                macs += _conv(width, neck, 1, before) + _conv(neck, neck, 3, side) + _conv(neck, out, 1, side)
            if width != out or stride == 2:
                macs += _conv(width, out, 1, side)
            width = out
    return macs + width * c.num_labels


def _inverted_residual(c_in: int, c_out: int, expand: int, stride: int, side: int) -> int:
    """1×1 up, 3×3 depthwise with the stride, 1×1 down."""
    wide, after = c_in * expand, side // stride
    return _conv(c_in, wide, 1, side) + wide * 9 * after**2 + _conv(wide, c_out, 1, after)


def mobilenetv2(c: Any, side: int) -> int:
    """Sandler et al. 2018, table 2, at width 1: (expansion, channels, repeats, stride) per row."""
    side //= 2
    macs = _conv(3, 32, 3, side) + 32 * 9 * side**2 + _conv(32, 16, 1, side)
    width = 16
    for out, repeats, stride in (
        *((24, 2, 2), (32, 3, 2), (64, 4, 2)),
        *((96, 3, 1), (160, 3, 2), (320, 1, 1)),
    ):
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            macs += _inverted_residual(width, out, 6, step, side)
            width, side = out, side // step
    return macs + _conv(320, 1280, 1, side) + 1280 * c.num_labels


def mobilevit(c: Any, side: int) -> int:
    """Stem, inverted residuals, three MobileViT blocks whose attention runs within each patch position."""
    neck, side = c.neck_hidden_sizes, side // 2
    macs = _conv(3, neck[0], 3, side) + _inverted_residual(neck[0], neck[1], 4, 1, side)
    macs += _inverted_residual(neck[1], neck[2], 4, 2, side)
    side //= 2
    macs += 2 * _inverted_residual(neck[2], neck[2], 4, 1, side)
    for hidden, depth, (c_in, width) in zip(c.hidden_sizes, (2, 4, 3), pairwise(neck[2:6]), strict=True):
        macs += _inverted_residual(c_in, width, 4, 2, side)
        side //= 2
        macs += _conv(width, width, 3, side) + _conv(width, hidden, 1, side)
        macs += _conv(hidden, width, 1, side) + _conv(2 * width, width, 3, side)
        tokens, sequences = side**2, c.patch_size**2
        projections = (4 * hidden**2 + 2 * hidden * int(hidden * c.mlp_ratio)) * tokens
        macs += depth * (projections + 2 * sequences * (tokens // sequences) ** 2 * hidden)
    return macs + _conv(neck[5], neck[6], 1, side) + neck[6] * c.num_labels


def _encoder(depth: int, hidden: int, inner: int, tokens: int) -> int:
    """Plain transformer layers: four projections, two feed-forward matrices, scores and values."""
    return depth * (tokens * (4 * hidden**2 + 2 * hidden * inner) + 2 * tokens**2 * hidden)


def vit(c: Any, side: int) -> int:
    """Patches and a class token; the head reads the class token alone."""
    patches = (side // c.patch_size) ** 2
    macs = patches * c.num_channels * c.patch_size**2 * c.hidden_size
    macs += _encoder(c.num_hidden_layers, c.hidden_size, c.intermediate_size, patches + 1)
    return macs + c.hidden_size * c.num_labels


def swin(c: Any, side: int) -> int:
    """Attention on windows (padded to whole windows), feed-forward on what is not padding, patch merging."""
    side = ceil(side / c.patch_size)
    macs = side**2 * c.num_channels * c.patch_size**2 * c.embed_dim
    width = c.embed_dim
    for stage, depth in enumerate(c.depths):
        window = min(c.window_size, side)
        tokens, padded = side**2, (ceil(side / window) * window) ** 2
        attention = padded * 4 * width**2 + 2 * padded * window**2 * width
        macs += depth * (attention + tokens * 2 * width * int(c.mlp_ratio * width))
        if stage < len(c.depths) - 1:
            side = ceil(side / 2)
            macs += side**2 * 4 * width * 2 * width
            width *= 2
    return macs + width * c.num_labels


def convnext(c: Any, side: int) -> int:
    """4×4 patches; 7×7 depthwise and two pointwise layers per block; 2×2 convolutions between stages."""
    side //= c.patch_size
    macs = _conv(c.num_channels, c.hidden_sizes[0], c.patch_size, side)
    for stage, (width, depth) in enumerate(zip(c.hidden_sizes, c.depths, strict=True)):
        if stage:
            side //= 2
            macs += _conv(c.hidden_sizes[stage - 1], width, 2, side)
        macs += depth * (49 * width + 8 * width**2) * side**2
    return macs + c.hidden_sizes[-1] * c.num_labels


def bert(c: Any, tokens: int) -> int:
    """Encoder, then a dense transform and the vocabulary at every token."""
    encoder = _encoder(c.num_hidden_layers, c.hidden_size, c.intermediate_size, tokens)
    return encoder + tokens * (c.hidden_size**2 + c.hidden_size * c.vocab_size)


def gpt2(c: Any, tokens: int) -> int:
    """Decoder layers of the encoder's shape (causal scores are computed whole) and the tied head."""
    return _encoder(c.n_layer, c.n_embd, 4 * c.n_embd, tokens) + tokens * c.n_embd * c.vocab_size


def _grouped_attention(c: Any, tokens: int) -> int:
    """Query and output projections of all heads, keys and values of fewer; scores for every query head."""
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    heads = 2 * (c.num_attention_heads + c.num_key_value_heads)
    return tokens * c.hidden_size * head * heads + 2 * tokens**2 * c.num_attention_heads * head


def llama(c: Any, tokens: int) -> int:
    """Grouped-query attention and a gated feed-forward of three matrices."""
    layer = _grouped_attention(c, tokens) + tokens * 3 * c.hidden_size * c.intermediate_size
    return c.num_hidden_layers * layer + tokens * c.hidden_size * c.vocab_size


def mixtral(c: Any, tokens: int) -> int:
    """As Llama, but a router and the chosen experts: each token pays for `num_experts_per_tok` of them."""
    expert = 3 * c.hidden_size * c.intermediate_size
    routed = tokens * (c.hidden_size * c.num_local_experts + c.num_experts_per_tok * expert)
    layer = _grouped_attention(c, tokens) + routed
    return c.num_hidden_layers * layer + tokens * c.hidden_size * c.vocab_size


def t5(c: Any, source: int, target: int) -> int:
    """Encoder on `source` tokens; decoder on `target` tokens with attention to itself and to the source."""
    inner = c.num_heads * c.d_kv

    def attention(queries: int, keys: int) -> int:
        return 2 * (queries + keys) * c.d_model * inner + 2 * queries * keys * inner

    feedforward = 2 * c.d_model * c.d_ff
    encoder = c.num_layers * (attention(source, source) + source * feedforward)
    decoder = attention(target, target) + attention(target, source) + target * feedforward
    return encoder + c.num_decoder_layers * decoder + target * c.d_model * c.vocab_size


def mamba(c: Any, tokens: int) -> int:
    """Projections, a depthwise causal convolution, the read-out of the selective scan, and the head.

    The convolution pads both sides and is cut afterwards, so it computes `kernel - 1` outputs that nobody
    reads. Of the scan `h ← A·h + B·x; y = C·h` (A diagonal) only the read-out sums over an index, the state;
    the update is elementwise.
    """
    inner, state, rank = c.intermediate_size, c.state_size, c.time_step_rank
    projections = tokens * (3 * c.hidden_size * inner + inner * (rank + 2 * state) + rank * inner)
    convolution = inner * c.conv_kernel * (tokens + c.conv_kernel - 1)
    layer = projections + convolution + tokens * inner * state
    return c.num_hidden_layers * layer + tokens * c.hidden_size * c.vocab_size
