"""BERT (Devlin et al. 2018, arXiv 1810.04805) with its masked-LM head, in the Small size of Turc et al. 2019 (arXiv 1908.08962)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from iftplan.nn.sources.zoo.activations import GELUActivation
from iftplan.nn.sources.zoo.initial_weights import draw_normal_
from iftplan.nn.sources.zoo.prediction import Prediction

VOCABULARY = 30522
CONTEXT = 512
SEGMENTS = 2
PADDING = 0
DROPOUT = 0.1
EPS = 1e-12


def bert_small() -> nn.Module:
    """BERT Small with its masked-LM head, tied to the token embedding."""
    return BertForMaskedLM(BertSizes(layers=4, width=512, heads=8))


@dataclass(frozen=True, slots=True)
class BertSizes:
    """Sizes of a BERT.

    Attributes:
        layers: blocks.
        width: channels of a token.
        heads: of its attention.
    """

    layers: int
    width: int
    heads: int


class BertEmbeddings(nn.Module):
    """Tokens, segments and positions; all tokens are of the first segment."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, width, padding_idx=PADDING)
        self.position_embeddings = nn.Embedding(CONTEXT, width)
        self.token_type_embeddings = nn.Embedding(SEGMENTS, width)
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)
        self.dropout = nn.Dropout(DROPOUT)
        self.position_ids: Tensor
        self.token_type_ids: Tensor
        self.register_buffer("position_ids", torch.arange(CONTEXT)[None], persistent=False)
        self.register_buffer("token_type_ids", torch.zeros(1, CONTEXT, dtype=torch.long), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) → (batch, tokens, channels)."""
        length = tokens.shape[1]
        segments = self.token_type_ids[:, :length].expand_as(tokens)
        x = self.word_embeddings(tokens) + self.token_type_embeddings(segments)
        x = x + self.position_embeddings(self.position_ids[:, :length])
        found: Tensor = self.dropout(self.LayerNorm(x))
        return found


class BertSelfAttention(nn.Module):
    """Every token attends to every token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_head_size = width // heads
        self.scaling = self.attention_head_size**-0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        query, key, value = (
            project(x).view(*x.shape[:-1], -1, self.attention_head_size).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        dropout = self.dropout.p if self.training else 0.0
        mixed = scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=self.scaling)
        return mixed.transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """A linear layer, added to the input of its branch, then normalised."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)
        self.LayerNorm = nn.LayerNorm(outputs, eps=EPS)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(…, inputs) and (…, outputs) → (…, outputs)."""
        found: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return found


class BertSelfOutput(_Output):
    """End of the attention."""


class BertOutput(_Output):
    """End of the feed-forward layers."""


class BertAttention(nn.Module):
    """Attention and its end."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self = BertSelfAttention(width, heads)
        self.output = BertSelfOutput(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        found: Tensor = self.output(self.self(x), x)
        return found


class BertIntermediate(nn.Module):
    """A linear layer, four times as wide, and GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 4 * width)
        self.intermediate_act_fn = GELUActivation()

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → (…, 4·channels)."""
        found: Tensor = self.intermediate_act_fn(self.dense(x))
        return found


class BertLayer(nn.Module):
    """Attention and feed-forward layers, each normalised after its input was added."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = BertAttention(width, heads)
        self.intermediate = BertIntermediate(width)
        self.output = BertOutput(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        attended = self.attention(x)
        found: Tensor = self.output(self.intermediate(attended), attended)
        return found


class BertEncoder(nn.Module):
    """The blocks."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(sizes.width, sizes.heads) for _ in range(sizes.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) → the same."""
        for layer in self.layer:
            x = layer(x)
        return x


class BertModel(nn.Module):
    """Embeddings and blocks."""

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.embeddings = BertEmbeddings(sizes.width)
        self.encoder = BertEncoder(sizes)
        self.apply(draw_normal_)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, tokens) → (batch, tokens, channels)."""
        found: Tensor = self.encoder(self.embeddings(tokens))
        return found


class BertPredictionHeadTransform(nn.Module):
    """A linear layer, GELU and a norm before the scores."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.transform_act_fn = GELUActivation()
        self.LayerNorm = nn.LayerNorm(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → the same."""
        found: Tensor = self.LayerNorm(self.transform_act_fn(self.dense(x)))
        return found


class BertLMPredictionHead(nn.Module):
    """A score for each word of the vocabulary; `bias` is that of its last layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(width)
        self.decoder = nn.Linear(width, VOCABULARY)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → (…, vocabulary)."""
        found: Tensor = self.decoder(self.transform(x))
        return found


class BertOnlyMLMHead(nn.Module):
    """The head of the masked-LM task alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.predictions = BertLMPredictionHead(width)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) → (…, vocabulary)."""
        found: Tensor = self.predictions(x)
        return found


class BertForMaskedLM(nn.Module):
    """BERT with its masked-LM head, whose weight is that of the token embedding.

    Attributes:
        all_tied_weights_keys: tied weights by the name of their original.
    """

    all_tied_weights_keys: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
    )

    def __init__(self, sizes: BertSizes) -> None:
        super().__init__()
        self.bert = BertModel(sizes)
        self.cls = BertOnlyMLMHead(sizes.width)
        self.cls.apply(draw_normal_)
        self.tie_weights()

    def tie_weights(self) -> None:
        """Give the head the weight of the token embedding, again after a move that lost the tie."""
        head = self.cls.predictions
        head.decoder.weight, head.decoder.bias = self.bert.embeddings.word_embeddings.weight, head.bias

    def forward(self, input_ids: Tensor) -> Prediction:
        """Logits of every token, for texts of numbered tokens, (batch, tokens)."""
        return Prediction(self.cls(self.bert(input_ids)))
