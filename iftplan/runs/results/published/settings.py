"""Tables 16 and 18 of arXiv 2303.11525: sizes and settings of language models, published and bundled."""

from __future__ import annotations

from dataclasses import dataclass

from iftplan.models.zoo.specs import zoo_cost
from iftplan.runs.document import parse_run, read_recipe


@dataclass(frozen=True, slots=True)
class SettingRow:
    """Published size or setting beside that of a bundled model and recipe.

    Attributes:
        what: the quantity.
        published: as printed.
        here: the bundled one.
    """

    what: str
    published: float
    here: float


def setting_rows(name: str) -> tuple[SettingRow, ...]:
    """Rows of "table16" (BERT Small) or "table18" (GPT-3 Small on the Pile).

    Args:
        name: of the table.
    """
    recipe, parameters = {"table16": ("bert-small", 29.1e6), "table18": ("gpt3-small-tokens", 125e6)}[name]
    run = parse_run(read_recipe(recipe), recipe)
    cost = zoo_cost(run.plan.model)
    assert cost is not None
    size = SettingRow("parameters", parameters, cost.total_parameters)
    if name == "table16":
        return (size,)
    steps, batch = run.training.steps, run.training.batch_size
    return (
        size,
        SettingRow("batch size", 256, batch),
        SettingRow("learning rate", 6e-4, run.optimizer.lr),
        SettingRow("training tokens", 2.5e9, steps * batch * run.data.context),
    )
