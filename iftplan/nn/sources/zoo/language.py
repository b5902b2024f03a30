"""Language models: BERT Small and the GPT-3 family, from transformers' configurations.

GPT-3 sizes are those of Brown et al. 2020 (arXiv 2005.14165, table 2.1), built as GPT-2, whose
architecture GPT-3 keeps but for its sparse attention pattern. The published 1.3 B row lists 24 heads of
128, which do not make its width of 2048; 16 heads of 128 do, the choice of most reproductions.
"""

from __future__ import annotations

from torch import nn

VOCABULARY = 50257
CONTEXT = 1024


def gpt3_small() -> nn.Module:
    """GPT-3 Small, 125 M parameters."""
    return _gpt(layers=12, width=768, heads=12)


def gpt3_medium() -> nn.Module:
    """GPT-3 Medium, 350 M parameters."""
    return _gpt(layers=24, width=1024, heads=16)


def gpt3_1_3b() -> nn.Module:
    """GPT-3 XL, 1.3 B parameters, with 16 heads of 128."""
    return _gpt(layers=24, width=2048, heads=16)


def gpt_char() -> nn.Module:
    """A GPT small enough to train on a CPU, over bytes."""
    return _gpt(layers=4, width=128, heads=4, vocabulary=256, context=128)


def bert_small() -> nn.Module:
    """BERT Small with its masked-LM head, tied to the token embedding."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        num_hidden_layers=4,
        hidden_size=512,
        num_attention_heads=8,
        intermediate_size=2048,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    model: nn.Module = BertForMaskedLM(config)
    return model


def _gpt(
    *, layers: int, width: int, heads: int, vocabulary: int = VOCABULARY, context: int = CONTEXT
) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        n_positions=context,
        vocab_size=vocabulary,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model: nn.Module = GPT2LMHeadModel(config)
    return model
