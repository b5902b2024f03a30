"""More than twenty published architectures against a counter that shares nothing with ours.

The fourteen of `fourteen`, and others from speech, mixtures of experts, state spaces and further kinds of
vision and text. The independent opinion is torch's FlopCounterMode as it comes, with its own formulas only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import transformers as hf

from iftplan.models.spec import InputSpec
from tests.support.independent import Comparison, compared
from tests.support.models.fourteen import IMAGE, MODELS, TEXT, Published

SECOND = (InputSpec((1, 16000)),)


def _deepseek() -> hf.PretrainedConfig:
    return hf.DeepseekV3Config(
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        n_routed_experts=16,
        vocab_size=1000,
    )


MORE: Mapping[str, Callable[[], Published]] = {
    "deit": lambda: Published(hf.DeiTForImageClassification, hf.DeiTConfig(), IMAGE),
    "regnet": lambda: Published(hf.RegNetForImageClassification, hf.RegNetConfig(), IMAGE),
    "segformer": lambda: Published(
        hf.SegformerForSemanticSegmentation, hf.SegformerConfig(), (InputSpec((1, 3, 512, 512)),)
    ),
    "clip": lambda: Published(
        hf.CLIPModel,
        hf.CLIPConfig(),
        (InputSpec((1, 16), "int64", "input_ids"), InputSpec((1, 3, 224, 224), name="pixel_values")),
    ),
    "gemma2": lambda: Published(hf.Gemma2ForCausalLM, hf.Gemma2Config(num_hidden_layers=4), TEXT),
    "deberta-v2": lambda: Published(hf.DebertaV2ForMaskedLM, hf.DebertaV2Config(num_hidden_layers=4), TEXT),
    "whisper": lambda: Published(
        hf.WhisperForConditionalGeneration,
        hf.WhisperConfig(),
        (InputSpec((1, 80, 3000), name="input_features"), InputSpec((1, 16), "int64", "decoder_input_ids")),
    ),
    "wav2vec2": lambda: Published(hf.Wav2Vec2ForCTC, hf.Wav2Vec2Config(), SECOND),
    "ast": lambda: Published(hf.ASTForAudioClassification, hf.ASTConfig(), (InputSpec((1, 1024, 128)),)),
    "qwen3-moe": lambda: Published(
        hf.Qwen3MoeForCausalLM,
        hf.Qwen3MoeConfig(num_hidden_layers=2, num_experts=16, num_experts_per_tok=4),
        TEXT,
    ),
    "deepseek-v3": lambda: Published(hf.DeepseekV3ForCausalLM, _deepseek(), TEXT),
    "mamba2": lambda: Published(
        hf.Mamba2ForCausalLM,
        hf.Mamba2Config(hidden_size=768, num_heads=24, head_dim=64, num_hidden_layers=4, vocab_size=50280),
        TEXT,
    ),
    "falcon-mamba": lambda: Published(
        hf.FalconMambaForCausalLM, hf.FalconMambaConfig(num_hidden_layers=2), TEXT
    ),
}

TWENTY: Mapping[str, Callable[[], Published]] = {**MODELS, **MORE}

FIELDS: Mapping[str, tuple[str, ...]] = {
    "vision": (
        *("resnet18", "resnet50", "mobilenetv2", "mobilevit", "vit", "swin", "convnext"),
        *("deit", "regnet", "segformer"),
    ),
    "vision and text": ("clip",),
    "text": ("bert", "gpt2", "gpt2-medium", "llama-1b", "t5-small", "gemma2", "deberta-v2"),
    "speech": ("whisper", "wav2vec2", "ast"),
    "mixture of experts": ("mixtral", "qwen3-moe", "deepseek-v3"),
    "state space": ("mamba-130m", "mamba2", "falcon-mamba"),
}


def compare(name: str) -> Comparison:
    """Count a published model on the meta device with iftplan and with FlopCounterMode as it comes."""
    published = TWENTY[name]()
    return compared(published.build(), published.inputs)
