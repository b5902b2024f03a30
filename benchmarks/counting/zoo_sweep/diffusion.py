"""Small networks of diffusers: autoencoders, U-Nets, diffusion transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from zoo_sweep.entry import Entry

STEP = "timestep=1:int64"
LATENT = "hidden_states=1x4x16x16"
TEXT = "encoder_hidden_states=1x8x32"
HEADS = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 2}
FLOW = {**HEADS, "in_channels": 4}
CHANNELS = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
CODER = {
    **CHANNELS,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
CROSS = {
    **CHANNELS,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
}
NOISY = ("sample=1x4x16x16", STEP, TEXT)
FILM = ("sample=1x4x4x16x16", STEP, "encoder_hidden_states=1x8x32")
PLANES = {
    **CHANNELS,
    "cross_attention_dim": 32,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
}
POSITIONS = ("img_ids=16x3", "txt_ids=8x3")

MODELS: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "AutoencoderKL": (CODER, ("1x3x32x32",)),
    "AsymmetricAutoencoderKL": (
        {
            "down_block_types": ("DownEncoderBlock2D",) * 2, "down_block_out_channels": (32, 64),
            "up_block_types": ("UpDecoderBlock2D",) * 2, "up_block_out_channels": (32, 64), "norm_num_groups": 8,
        },
        ("1x3x32x32",),
    ),
    "AutoencoderTiny": ({"encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4}, ("1x3x32x32",)),
    "AutoencoderKLTemporalDecoder": (
        {"down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (32, 64)},
        ("1x3x32x32",),
    ),
    "AutoencoderKLWan": (
        {"base_dim": 16, "z_dim": 16, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [True]},
        ("1x3x5x32x32",),
    ),
    "AutoencoderOobleck": (
        {"encoder_hidden_size": 16, "decoder_channels": 16, "decoder_input_channels": 8, "channel_multiples": [1, 2], "downsampling_ratios": [2, 4]},
        ("1x2x1024",),
    ),
    "VQModel": (CODER, ("1x3x32x32",)),
    "UNet1DModel": ({"block_out_channels": (32, 32, 64), "sample_size": 256, "extra_in_channels": 64}, ("1x2x256", STEP)),
    "UNet2DModel": (
        {**CHANNELS, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")},
        ("1x3x32x32", STEP),
    ),
    "UNet2DConditionModel": (CROSS, NOISY),
    "UNet3DConditionModel": ({**PLANES, "attention_head_dim": 8}, FILM),
    "UNetSpatioTemporalConditionModel": (
        {
            "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32, "num_attention_heads": (4, 4),
            "addition_time_embed_dim": 32, "projection_class_embeddings_input_dim": 96,
            "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        },
        ("sample=1x2x8x16x16", STEP, "encoder_hidden_states=1x1x32", "added_time_ids=1x3"),
    ),
    "ControlNetModel": (
        {**{k: v for k, v in CROSS.items() if k != "up_block_types"}, "conditioning_embedding_out_channels": (16, 32)},
        (*NOISY, "controlnet_cond=1x3x32x32"),
    ),
    "Transformer2DModel": (
        {**FLOW, "norm_num_groups": 4, "cross_attention_dim": 32},
        (LATENT, TEXT),
    ),
    "TransformerTemporalModel": ({**FLOW, "in_channels": 32, "norm_num_groups": 8}, ("hidden_states=4x32x8x8",)),
    "PriorTransformer": (
        {**HEADS, "embedding_dim": 32, "num_embeddings": 8},
        ("hidden_states=1x32", STEP, "proj_embedding=1x32", TEXT),
    ),
    "DiTTransformer2DModel": (
        {**FLOW, "norm_num_groups": 4, "sample_size": 16, "num_embeds_ada_norm": 100},
        (LATENT, STEP, "class_labels=1:int64"),
    ),
    "PixArtTransformer2DModel": (
        {**FLOW, "norm_num_groups": 4, "sample_size": 16, "cross_attention_dim": 64, "caption_channels": 32, "use_additional_conditions": False},
        (LATENT, STEP, TEXT),
    ),
    "SD3Transformer2DModel": (
        {**FLOW, "sample_size": 16, "joint_attention_dim": 32, "caption_projection_dim": 64, "pooled_projection_dim": 32, "out_channels": 4, "pos_embed_max_size": 16},
        (LATENT, TEXT, "pooled_projections=1x32", STEP),
    ),
    "AuraFlowTransformer2DModel": (
        {
            "num_attention_heads": 4, "attention_head_dim": 16, "in_channels": 4, "num_mmdit_layers": 1, "num_single_dit_layers": 1, "sample_size": 16,
            "joint_attention_dim": 32, "caption_projection_dim": 64, "out_channels": 4, "pos_embed_max_size": 64,
        },
        (LATENT, TEXT, "timestep=1"),
    ),
    "FluxTransformer2DModel": (
        {**FLOW, "num_single_layers": 1, "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8)},
        ("hidden_states=1x16x4", TEXT, "pooled_projections=1x32", "timestep=1", *POSITIONS),
    ),
    "ChromaTransformer2DModel": (
        {**FLOW, "num_single_layers": 1, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8), "approximator_hidden_dim": 64, "approximator_layers": 1, "approximator_num_channels": 16},
        ("hidden_states=1x16x4", TEXT, "timestep=1", *POSITIONS),
    ),
    "SanaTransformer2DModel": (
        {**FLOW, "out_channels": 4, "num_cross_attention_heads": 4, "cross_attention_head_dim": 16, "cross_attention_dim": 64, "caption_channels": 32, "sample_size": 16},
        (LATENT, TEXT, STEP),
    ),
    "LatteTransformer3DModel": (
        {**FLOW, "sample_size": 16, "cross_attention_dim": 64, "caption_channels": 32, "patch_size": 2, "out_channels": 4, "video_length": 4, "num_embeds_ada_norm": 1000, "norm_type": "ada_norm_single", "norm_elementwise_affine": False, "attention_bias": True},
        ("hidden_states=1x4x4x16x16", STEP, TEXT),
    ),
    "CogVideoXTransformer3DModel": (
        {**FLOW, "out_channels": 4, "time_embed_dim": 32, "text_embed_dim": 32, "sample_width": 8, "sample_height": 8, "sample_frames": 5, "max_text_seq_length": 8},
        ("hidden_states=1x2x4x8x8", TEXT, STEP),
    ),
    "WanTransformer3DModel": (
        {**FLOW, "out_channels": 4, "text_dim": 32, "freq_dim": 32, "ffn_dim": 128, "cross_attn_norm": True, "rope_max_seq_len": 32},
        ("hidden_states=1x4x2x16x16", STEP, TEXT),
    ),
    "AllegroTransformer3DModel": (
        {**FLOW, "attention_head_dim": 24, "out_channels": 4, "cross_attention_dim": 96, "caption_channels": 32, "sample_height": 8, "sample_width": 8, "sample_frames": 4},
        ("hidden_states=1x4x4x8x8", TEXT, STEP),
    ),
    "StableAudioDiTModel": (
        {**FLOW, "sample_size": 64, "num_key_value_attention_heads": 2, "out_channels": 4, "cross_attention_dim": 32, "cross_attention_input_dim": 32, "time_proj_dim": 32, "global_states_input_dim": 64},
        ("hidden_states=1x4x64", "timestep=1", TEXT, "global_hidden_states=1x1x64"),
    ),
    "Lumina2Transformer2DModel": (
        {"hidden_size": 64, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2, "multiple_of": 16, "in_channels": 4, "axes_dim_rope": (4, 4, 8), "axes_lens": (32, 32, 32), "cap_feat_dim": 32, "sample_size": 16},
        (LATENT, "timestep=1", TEXT, "encoder_attention_mask=1x8:bool"),
    ),
}  # fmt: skip
"""Class → its arguments, and what it is called with."""


def diffusers_entries() -> Iterator[Entry]:
    """Those that this release has."""
    import diffusers

    for name, (arguments, inputs) in MODELS.items():
        kind = getattr(diffusers, name, None)
        if kind is not None:

            def build(
                kind: Callable[..., nn.Module] = kind, arguments: Mapping[str, Any] = arguments
            ) -> nn.Module:
                return kind(**arguments)

            yield Entry(
                "diffusers",
                name,
                build,
                inputs,
                quick=name in ("AutoencoderKL", "UNet2DConditionModel", "SD3Transformer2DModel"),
            )
