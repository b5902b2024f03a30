"""Small configurations of transformers: text, images, video, speech, several of them, experts, state spaces, time series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from zoo_sweep.entry import Entry

SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "decoder_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "decoder_intermediate_size"), 128),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers", "depth", "decoder_num_hidden_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads", "decoder_num_attention_heads"), 4),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 128),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    **dict.fromkeys(("vocab_size", "decoder_vocab_size"), 200),
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "entity_vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "use_cache": False,
}  # fmt: skip
"""A configuration's attribute → its value here, in nested configurations too."""

IDS = "input_ids=1x16:int64"
DECODED = (IDS, "decoder_input_ids=1x16:int64")
PIXELS = "pixel_values=1x3x{0}x{0}"
WAVE = "input_values=1x16000"

TEXT = """
Albert:MaskedLM Bert:MaskedLM BertGeneration:Decoder BigBird:MaskedLM BioGpt:CausalLM Bloom:CausalLM Camembert:MaskedLM
Canine:SequenceClassification CTRL:LMHeadModel ConvBert:MaskedLM CpmAnt:CausalLM Deberta:MaskedLM DebertaV2:MaskedLM
DiffLlama:CausalLM DistilBert:MaskedLM Doge:CausalLM DPRQuestionEncoder Electra:MaskedLM Ernie4_5:CausalLM FNet:MaskedLM
Flaubert:WithLMHeadModel GPT2LMHeadModel GPTBigCode:CausalLM GPTNeoX:CausalLM Gemma:CausalLM Gemma2:CausalLM Glm4:CausalLM
Granite:CausalLM IBert:MaskedLM LayoutLM:MaskedLM Llama:CausalLM Longformer:MaskedLM Luke:MaskedLM MPNet:MaskedLM Mpt:CausalLM
Mistral:CausalLM ModernBert:MaskedLM Mra:MaskedLM Nystromformer:MaskedLM Cohere:CausalLM Helium:CausalLM
OPT:CausalLM Olmo2:CausalLM OpenAIGPTLMHeadModel Persimmon:CausalLM Phi:CausalLM Phi3:CausalLM Qwen2:CausalLM Qwen3:CausalLM
RemBert:MaskedLM Roberta:MaskedLM RoFormer:MaskedLM StableLm:CausalLM Starcoder2:CausalLM SmolLM3:CausalLM Tapas:MaskedLM
XGLM:CausalLM XLMWithLMHeadModel XLMRobertaXL:MaskedLM Yoso:MaskedLM BitNet:CausalLM Splinter:QuestionAnswering Fuyu:CausalLM
VisualBert:PreTraining ImageGPT:ImageClassification
"""
EXPERTS = """
Mixtral:CausalLM Qwen2Moe:CausalLM Qwen3Moe:CausalLM Olmoe:CausalLM GptOss:CausalLM GraniteMoe:CausalLM JetMoe:CausalLM
Phimoe:CausalLM Glm4Moe:CausalLM MiniMax:CausalLM FlexOlmo:CausalLM Ernie4_5_Moe:CausalLM Cohere2Moe:CausalLM
"""
STATE_SPACES = """
Mamba:CausalLM FalconMamba:CausalLM Bamba:CausalLM FalconH1:CausalLM Jamba:CausalLM RecurrentGemma:CausalLM Rwkv:CausalLM
xLSTM:CausalLM Qwen3Next:CausalLM NemotronH:CausalLM Lfm2:CausalLM OlmoHybrid:CausalLM
"""
ENCODER_DECODER = """
Bart:ConditionalGeneration BlenderbotSmall:ConditionalGeneration BigBirdPegasus:ConditionalGeneration FSMT:ConditionalGeneration
LED:ConditionalGeneration LongT5:ConditionalGeneration M2M100:ConditionalGeneration MarianMTModel MBart:ConditionalGeneration
MT5:ConditionalGeneration NllbMoe:ConditionalGeneration Pegasus:ConditionalGeneration PegasusX:ConditionalGeneration
SwitchTransformers:ConditionalGeneration T5:ConditionalGeneration T5Gemma:ConditionalGeneration UMT5:ConditionalGeneration
SeamlessM4T:TextToText
"""
IMAGES = """
Beit:ImageClassification@224 Bit:ImageClassification@64 Cvt:ImageClassification@64 DeiT:ImageClassification@224
Dinov2:ImageClassification@224 Dinov2WithRegisters:ImageClassification@224 DINOv3ViTModel@224 DonutSwin:ImageClassification@224
FocalNet:ImageClassification@64 GLPN:DepthEstimation@64 HGNetV2:ImageClassification@64 Hiera:ImageClassification@224
IJepa:ImageClassification@224 Levit:ImageClassification@224 MaskFormer:InstanceSegmentation@64 MobileNetV1:ImageClassification@64
MobileNetV2:ImageClassification@64 MobileViT:ImageClassification@128 MobileViTV2:ImageClassification@128 PoolFormer:ImageClassification@64
Pvt:ImageClassification@224 PvtV2:ImageClassification@64 RegNet:ImageClassification@64 ResNet:ImageClassification@64
Segformer:SemanticSegmentation@64 Siglip:ImageClassification@224 SuperPoint:KeypointDetection@64 SwiftFormer:ImageClassification@224
Swin:ImageClassification@224 Swinv2:ImageClassification@256 TextNet:ImageClassification@64 ViT:ImageClassification@224
ViTMAE:PreTraining@224 ViTMSN:ImageClassification@224 VitDetModel@224 Yolos:ObjectDetection@512 PPLCNet:ImageClassification@64
MLCDVisionModel@336 Aimv2VisionModel@224 Data2VecVision:ImageClassification@224
"""
SPEECH = """
Data2VecAudio:CTC Hubert:CTC SEW:CTC SEWD:CTC UniSpeech:CTC UniSpeechSat:CTC Wav2Vec2:CTC WavLM:CTC
"""
IMAGES_AND_TEXT = """
AltCLIPModel@224 BridgeTowerModel@288 Blip:ConditionalGeneration@384 ChineseCLIPModel@224 CLIPModel@224 CLIPSegModel@224 Git:CausalLM@224
GroupViTModel@224 SiglipModel@224 Vilt:QuestionAnswering@384
"""

STAGES = {"embedding_size": 16, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1]}
WINDOWS = {"embed_dim": 32, "depths": [1, 2, 1], "num_heads": [2, 4, 8], "hidden_size": None}
NO_TIMM = {"backbone": None, "use_timm_backbone": False, "d_model": 64}
RESNET = {"backbone_config": {"model_type": "resnet", **STAGES, "out_features": ["stage4"]}, **NO_TIMM}
FOUR = {
    "backbone_config": {"model_type": "resnet", **STAGES, "out_features": ["stage2", "stage3", "stage4"]},
    **NO_TIMM,
}
LATENT = {
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "head_dim": 8,
    "num_key_value_heads": 4,
}
MEL = "input_features=1x80x3000"

SMALLER: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("RegNetForImageClassification", "ResNetForImageClassification"), STAGES),
    "BitForImageClassification": {**STAGES, "embedding_size": 32, "hidden_sizes": [128, 128, 256, 256]},
    **dict.fromkeys(
        ("SwinForImageClassification", "DonutSwinForImageClassification", "Swinv2ForImageClassification"),
        WINDOWS,
    ),
    "FocalNetForImageClassification": {
        "embed_dim": 32,
        "depths": [1, 1, 2, 1],
        "hidden_sizes": [32, 64, 128, 256],
        "hidden_size": None,
    },
    "CvtForImageClassification": {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    "HieraForImageClassification": {
        "embed_dim": 32,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 2, 4, 8],
        "hidden_size": None,
    },
    "PvtForImageClassification": {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [16, 32, 64, 128],
        "num_attention_heads": [1, 2, 4, 8],
    },
}
"""Class of a table above → what makes its several stages small."""

OWN: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]] = {
    "DetrForObjectDetection": (RESNET, (PIXELS.format(64),)),
    "ConditionalDetrForObjectDetection": (RESNET, (PIXELS.format(64),)),
    "DabDetrForObjectDetection": (RESNET, (PIXELS.format(64),)),
    "DeformableDetrForObjectDetection": (FOUR, (PIXELS.format(64),)),
    "TableTransformerForObjectDetection": (RESNET, (PIXELS.format(64),)),
    "ConvNextForImageClassification": ({"num_hidden_layers": None, "hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}, (PIXELS.format(64),)),
    "EfficientNetForImageClassification": ({"width_coefficient": 1.0, "depth_coefficient": 0.5, "hidden_dim": 1280, "image_size": 64}, (PIXELS.format(64),)),
    "GPTJForCausalLM": ({"rotary_dim": 8}, (IDS,)),
    "CodeGenForCausalLM": ({"rotary_dim": 8, "n_ctx": 128}, (IDS,)),
    "GPTNeoForCausalLM": ({"attention_types": [[["global", "local"], 1]]}, (IDS,)),
    "FalconForCausalLM": ({"head_dim": None}, (IDS,)),
    "FunnelForMaskedLM": ({"num_hidden_layers": None, "block_sizes": [1, 1, 1], "d_head": 16, "d_inner": 128}, (IDS,)),
    "XLNetLMHeadModel": ({"max_position_embeddings": None, "d_inner": 128, "d_head": 16}, (IDS,)),
    "ReformerModelWithLMHead": ({"is_decoder": True, "attention_head_size": 16, "axial_pos_shape": [4, 4], "axial_pos_embds_dim": [32, 32], "feed_forward_size": 128}, (IDS,)),
    "SqueezeBertForMaskedLM": ({"embedding_size": 64}, (IDS,)),
    "ProphetNetForConditionalGeneration": ({"num_hidden_layers": None}, DECODED),
    "PerceiverForMaskedLM": ({"d_latents": 64, "num_latents": 16, "max_position_embeddings": 16, "num_self_attends_per_block": 2}, ("inputs=1x16:int64",)),
    "DeepseekV2ForCausalLM": ({**LATENT, "first_k_dense_replace": 1, "num_experts_per_tok": 2}, (IDS,)),
    "DeepseekV3ForCausalLM": ({**LATENT, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}, (IDS,)),
    "MiniCPM3ForCausalLM": (LATENT, (IDS,)),
    "DbrxForCausalLM": ({"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8}, "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2}}, (IDS,)),
    "MobileBertForMaskedLM": ({"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32}, (IDS,)),
    "DPTForDepthEstimation": ({"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [16, 32, 32, 32], "fusion_hidden_size": 32, "image_size": 64}, (PIXELS.format(64),)),
    "OwlViTForObjectDetection": ({"projection_dim": 64}, (IDS, PIXELS.format(768))),
    "Wav2Vec2ConformerForSequenceClassification": ({}, (WAVE,)),
    "Mamba2ForCausalLM": ({"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 2}, (IDS,)),
    "LayoutLMv3ForSequenceClassification": ({"coordinate_size": 12, "shape_size": 8}, (IDS, "bbox=1x16x4:int64", PIXELS.format(224))),
    "LxmertForQuestionAnswering": ({"l_layers": 1, "x_layers": 1, "r_layers": 1, "visual_feat_dim": 32}, (IDS, "visual_feats=1x4x32", "visual_pos=1x4x4")),
    "LlavaForConditionalGeneration": ({"image_token_index": 0, "image_token_id": 0, "image_seq_length": 49}, ("input_ids=1x49:int64", PIXELS.format(224))),
    "WhisperForConditionalGeneration": ({"max_source_positions": 1500}, (MEL, "decoder_input_ids=1x16:int64")),
    "ASTForAudioClassification": ({"max_length": 128}, ("input_values=1x128x128",)),
    "MoonshineForConditionalGeneration": ({}, (WAVE, "decoder_input_ids=1x16:int64")),
    "SpeechT5ForSpeechToText": ({}, (WAVE, "decoder_input_ids=1x16:int64")),
    "Speech2TextForConditionalGeneration": ({}, ("input_features=1x64x80", "decoder_input_ids=1x16:int64")),
    "ParakeetForCTC": ({}, ("input_features=1x200x80",)),
    "EncodecModel": ({"hidden_size": 128, "num_filters": 8}, ("input_values=1x1x4000",)),
    "DacModel": ({"encoder_hidden_size": 16, "decoder_hidden_size": 128, "hidden_size": 256}, ("input_values=1x1x4096",)),
    "UnivNetModel": ({"model_hidden_channels": 16}, ("input_features=1x20x100",)),
    "VivitForVideoClassification": ({"num_frames": 4, "image_size": 64}, ("pixel_values=1x4x3x64x64",)),
    "TimesformerForVideoClassification": ({"num_frames": 4, "image_size": 64}, ("pixel_values=1x4x3x64x64",)),
    "VideoMAEForVideoClassification": ({"num_frames": 4, "image_size": 64}, ("pixel_values=1x4x3x64x64",)),
    "VJEPA2ForVideoClassification": ({"mlp_ratio": 2, "pred_hidden_size": 64, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1, "crop_size": 64, "frames_per_clip": 8}, ("pixel_values_videos=1x8x3x64x64",)),
    "PatchTSTForPrediction": ({"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 8}, ("past_values=1x32x2",)),
    "PatchTSMixerForPrediction": ({"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 8}, ("past_values=1x32x2",)),
    "DecisionTransformerModel": ({}, ("states=1x8x17", "actions=1x8x4", "rewards=1x8x1", "returns_to_go=1x8x1", "timesteps=1x8:int64", "attention_mask=1x8:int64")),
}  # fmt: skip
"""Class → what its configuration says beside `SMALL`, and its inputs."""

BELOW: Mapping[str, Mapping[str | int, int]] = {
    "LlavaForConditionalGeneration": {"input_ids": 1},  # every token is one of the image
}

QUICK = {
    "BertForMaskedLM", "GPT2LMHeadModel", "LlamaForCausalLM", "MixtralForCausalLM", "MambaForCausalLM", "T5ForConditionalGeneration",
    "ViTForImageClassification", "SwinForImageClassification", "DetrForObjectDetection", "CLIPModel", "Wav2Vec2ForCTC",
    "WhisperForConditionalGeneration", "VideoMAEForVideoClassification", "DeepseekV3ForCausalLM", "ViltForQuestionAnswering",
}  # fmt: skip


def transformers_entries() -> Iterator[Entry]:
    """Those that this release has, fields one after the other."""
    fields = (
        *((name, {}, (IDS,)) for name in _names(TEXT + EXPERTS + STATE_SPACES)),
        *((name, {}, DECODED) for name in _names(ENCODER_DECODER)),
        *((name, SMALLER.get(name, {}), (PIXELS.format(side),)) for name, side in _sized(IMAGES)),
        *((name, {}, (WAVE,)) for name in _names(SPEECH)),
        *((name, {}, (IDS, PIXELS.format(side))) for name, side in _sized(IMAGES_AND_TEXT)),
        *((name, own, inputs) for name, (own, inputs) in OWN.items()),
    )
    for name, own, inputs in fields:
        yield Entry("transformers", name, _Builder(name, own), inputs, BELOW.get(name, {}), name in QUICK)


class _Builder:
    """Makes a model; its module is imported when it is asked to."""

    def __init__(self, name: str, own: Mapping[str, Any]) -> None:
        self.name = name
        self.own = own

    def __call__(self) -> nn.Module:
        import transformers

        kind = getattr(transformers, self.name)
        made: nn.Module = kind(small(kind.config_class, self.own))
        return made


def _names(table: str) -> list[str]:
    """`Bert:MaskedLM` is BertForMaskedLM."""
    return [_called(word) for word in table.split()]


def _called(word: str) -> str:
    head, colon, task = word.partition(":")
    return (
        f"{head}For{task}"
        if colon and task[0].isupper() and not task.startswith(("LMHead", "With", "Decoder"))
        else head + task
    )


def _sized(table: str) -> list[tuple[str, str]]:
    return [(_called(name), side) for name, _, side in (word.partition("@") for word in table.split())]


def small(kind: Any, own: Mapping[str, Any]) -> Any:
    """A configuration of few and narrow layers; in `own`, None leaves an attribute as it is by default."""
    from transformers import PretrainedConfig

    default = kind()
    settings = {name: value for name, value in SMALL.items() if name not in own and _has(default, name)}
    nested = {
        name: small(type(part), {}).to_dict()
        for name, part in vars(default).items()
        if isinstance(part, PretrainedConfig) and name not in own
    }
    given = {name: value for name, value in own.items() if value is not None or name in ("backbone",)}
    return kind(**settings, **nested, **given)


def _has(config: Any, name: str) -> bool:
    value = getattr(config, name, None)
    return type(value) in (int, bool)
