"""Tables and figures of the Sparse-IFT paper (arXiv 2303.11525): what each shows, and which published rows it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.runs.results.published.results import PublishedResult, all_published


class Arithmetic(StrEnum):
    """Kind of arithmetic that answers a table or figure."""

    RESULTS = "results"
    CARDINALITY = "cardinality"
    WIDTHS = "widths"
    SETTINGS = "settings"
    TRAINING = "training"
    SPEED = "speed"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Selection:
    """Published rows that a table shows.

    Attributes:
        table: where `results.csv` or `details.csv` has them.
        transforms: families; all of them where empty.
        methods: methods; all of them where empty.
        nonlinear: rows with (True) or without a non-linearity alone; None for both.
    """

    table: str
    transforms: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    nonlinear: bool | None = None

    def has(self, row: PublishedResult) -> bool:
        """Whether a published row is among them."""
        return (
            row.table == self.table
            and row.source == "2303.11525"
            and (not self.transforms or row.transform in self.transforms)
            and (not self.methods or row.method in self.methods)
            and self.nonlinear in (None, row.nonlinear)
        )


@dataclass(frozen=True, slots=True)
class PaperEntry:
    """Table or figure of the paper.

    Attributes:
        name: such as "table2".
        title: what it shows.
        arithmetic: that answers it.
        rows: published rows, in the order in which they are shown.
        notes: sentences on what is ours and what is the paper's.
    """

    name: str
    title: str
    arithmetic: Arithmetic
    rows: tuple[Selection, ...] = ()
    notes: tuple[str, ...] = ()

    def results(self) -> tuple[PublishedResult, ...]:
        """The published rows, each once."""
        found = all_published()
        return tuple(dict.fromkeys(row for part in self.rows for row in found if part.has(row)))

    @property
    def small_recipe(self) -> str:
        """Recipe of ours whose task is like the table's, in minutes or hours on a CPU."""
        language = any(row.metric == "ppl" for row in self.results())
        return "shakespeare-gpt" if language else "digits"

    @property
    def can_be_trained(self) -> bool:
        """Whether a recipe of iftplan measures what the table reports: accuracy or perplexity after one training."""
        return bool(rows := self.results()) and all(
            row.metric in ("top1", "ppl") and not row.method.endswith("finetune") for row in rows
        )


_DENSE = Selection("2", methods=("dense",))
_RIGL = Selection("2", methods=("rigl",))
_VISION = "The paper closes all layers: the first and the last stay dense, and the others pay for what those two grow by (appendix B.2)."

PAPER: Mapping[str, PaperEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            PaperEntry(
                "table1",
                "search space of each family, in maskable weights of a layer",
                Arithmetic.CARDINALITY,
            ),
            PaperEntry(
                "table2",
                "training methods on Sparse Wide ResNet-18, CIFAR-100",
                Arithmetic.RESULTS,
                (Selection("2"),),
                (_VISION,),
            ),
            PaperEntry(
                "table3",
                "the four families on ResNet-18, CIFAR-100, trained with RigL",
                Arithmetic.RESULTS,
                (_DENSE, _RIGL, Selection("9", nonlinear=True)),
                (_VISION,),
            ),
            PaperEntry(
                "table4",
                "unstructured against transposable N:M masks on Sparse Wide ResNet-18, CIFAR-100",
                Arithmetic.RESULTS,
                (_DENSE, _RIGL, Selection("11", transforms=("wide",))),
                (_VISION, "The paper's column for sparsity 0.9 has 1:8 masks, whose sparsity is 0.875."),
            ),
            PaperEntry(
                "table5",
                "Sparse Wide on efficient networks, CIFAR-100",
                Arithmetic.RESULTS,
                (Selection("10", transforms=("dense", "wide")),),
                (_VISION,),
            ),
            PaperEntry(
                "table6",
                "ResNet-18, ResNet-34 and BotNet-50 on ImageNet",
                Arithmetic.RESULTS,
                (Selection("6"),),
                (_VISION,),
            ),
            PaperEntry(
                "table7",
                "detection (COCO) and segmentation (Cityscapes) with Sparse Wide ResNet-18",
                Arithmetic.RESULTS,
                (Selection("7"),),
                (
                    "The backbone is transformed and closed alone, and the layers that read its wider maps come on top; tables 12 and 13 have the other metrics.",
                    "MMDetection publishes AP 31.7 for the dense RetinaNet with ResNet-18, 2.4 above the paper's, so a part of the gain is a weaker baseline.",
                ),
            ),
            PaperEntry(
                "table8",
                "GPT-3 Small on WikiText-103, perplexity",
                Arithmetic.RESULTS,
                (Selection("8"),),
                ("The paper closes the masked matrices; attention products and head grow on top (table15).",),
            ),
            PaperEntry(
                "table9",
                "families with and without a non-linearity inside, ResNet-18, CIFAR-100",
                Arithmetic.RESULTS,
                (_DENSE, Selection("9")),
                (_VISION,),
            ),
            PaperEntry(
                "table10",
                "Sparse Wide and Parallel on efficient networks, CIFAR-100",
                Arithmetic.RESULTS,
                (Selection("10"),),
                (_VISION,),
            ),
            PaperEntry(
                "table11",
                "structured controls: low-rank layers and N:M masks, ResNet-18, CIFAR-100",
                Arithmetic.RESULTS,
                (_DENSE, Selection("11"), _RIGL),
                (_VISION, "Low-rank rows are dense; their sparsity stands for the width multiplier."),
            ),
            PaperEntry("table12", "detection on COCO, all metrics", Arithmetic.RESULTS, (Selection("12"),)),
            PaperEntry(
                "table13", "segmentation on Cityscapes, all metrics", Arithmetic.RESULTS, (Selection("13"),)
            ),
            PaperEntry("table14", "sizes of Sparse Wide GPT-3 Small", Arithmetic.WIDTHS),
            PaperEntry("table15", "training FLOPs of GPT-3 on WikiText-103", Arithmetic.TRAINING),
            PaperEntry(
                "table16",
                "size of BERT Small",
                Arithmetic.SETTINGS,
                notes=(
                    "The bundled model has no pooler and no head for next sentences, which are 263 682 parameters.",
                ),
            ),
            PaperEntry(
                "table17",
                "BERT Small fine-tuned on SQuAD v1.1, exact match",
                Arithmetic.RESULTS,
                (Selection("17"),),
                (
                    "SQuAD needs a head and data that iftplan does not have; the costs are those of pre-training.",
                ),
            ),
            PaperEntry("table18", "settings of GPT-3 Small on the Pile", Arithmetic.SETTINGS),
            PaperEntry(
                "table19",
                "GPT-3 Small pre-trained on the Pile and fine-tuned on WikiText-103, perplexity",
                Arithmetic.RESULTS,
                (Selection("19"),),
                (
                    "MACs are those of pre-training; what is fine-tuned dense computes with all its weights afterwards.",
                ),
            ),
            PaperEntry(
                "figure1",
                "accuracy on ImageNet against training MACs",
                Arithmetic.RESULTS,
                (Selection("6"),),
                (_VISION,),
            ),
            PaperEntry("figure2", "drawing of the families; nothing to compute", Arithmetic.NONE),
            PaperEntry("figure3", "measured speed-ups of Sparse Wide at sparsity 0.9", Arithmetic.SPEED),
        )
    }
)
"""Name → table or figure, in the paper's order."""


def paper_entry(name: str) -> PaperEntry:
    """Table or figure by its name: "table2", "Table 2", "2", "figure1", "fig 1".

    Raises:
        InputError: the paper has none of that name; says which it has.
    """
    short = "".join(name.lower().split()).replace("fig.", "figure").replace("tab.", "table")
    short = f"table{short}" if short.isdecimal() else short
    short = short.replace("figure", "fig").replace("fig", "figure")
    if short not in PAPER:
        meant = did_you_mean(short, PAPER)
        raise InputError(
            f"the paper has no {name!r}; it has table1 to table19 and figure1 to figure3.{meant}"
        )
    return PAPER[short]
