"""`iftplan spec` for people: what can widen, what cannot, and the line that fixes it."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor, nn

from iftplan.models.spec import InputSpec
from iftplan.models.tables import spec_table
from iftplan.nn.reading.read import read_model
from iftplan.nn.reading.widths.trace import trace_widths


class Strict(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 8), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for channel in range(x.shape[-1]):  # line 19
            x = x + channel
        return self.head(self.b(x))


def test_every_fixed_width_is_listed_with_the_line_that_fixes_it() -> None:
    notes = spec_table(read_model(Strict(), (InputSpec((2, 3, 5)),), widths=True)).notes
    assert notes[0] == "1 width can move, 3 are fixed"
    (fixed,) = (note for note in notes if note.startswith("a.weight keeps 8: "))
    assert fixed.endswith("tests/models/test_tables.py:23")
    assert "head.weight keeps 4: an output of the model" in notes
    assert any(note.startswith("a.weight keeps 5: an input of the model") for note in notes)


def test_a_single_fixed_width_is_in_the_singular() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 5, bias=False))
    model[3].weight = model[0].weight
    notes = spec_table(read_model(model, (InputSpec((2, 3), "int64"),), widths=True)).notes
    assert notes[0] == "2 widths can move, 1 is fixed"


def test_a_long_list_is_cut_and_counted() -> None:
    heads = nn.ModuleList(nn.Linear(8, n) for n in range(2, 20))

    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.heads = nn.Linear(5, 8), heads

        def forward(self, x: Tensor) -> list[Tensor]:
            x = self.stem(x)
            return [head(x) for head in self.heads]

    notes = spec_table(read_model(Many(), (InputSpec((2, 5)),), widths=True)).notes
    assert notes[0] == "1 width can move, 19 are fixed"  # eighteen heads and the input
    assert len([note for note in notes if " keeps " in note]) == 12
    assert "and 7 more, which the document lists" in notes


@pytest.mark.parametrize("file", ["/tmp/ipykernel_1/2.py", "/tmp/ipykernel_3/4.py", "<ipython-input-5>"])
def test_a_line_in_a_notebook_is_called_the_same_in_every_process(file: str) -> None:
    scope: dict[str, Any] = {"nn": nn}
    code = "\nclass Cell(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = nn.Linear(8, 4)\n    def forward(self, x):\n        return self.a(x)\n"
    exec(compile(code, file, "exec"), scope)
    couplings = trace_widths(scope["Cell"](), (InputSpec((2, 8)),))
    assert {w.fixed for w in couplings.widths.values()} == {
        "an input of the model (a at line 7 of a notebook cell)",
        "an output of the model",
    }
