"""What models cost at another revision of the repository, in the same environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from iftplan.base.errors import InputError
from iftplan.checks.baseline import Baseline
from iftplan.checks.check import Costs, Failure, measure_models
from iftplan.checks.configfile import read_config
from iftplan.checks.configuration import Configuration, ConfiguredModel
from iftplan.checks.revisions import Checkout, checked_out
from iftplan.models.cost import ModelCost


def revision_baseline(
    revision: str,
    config: Configuration,
    models: Sequence[ConfiguredModel],
    *,
    cache: Path | None,
    jobs: int | None,
    around: Callable[[int], AbstractContextManager[None]],
) -> tuple[Baseline, tuple[str, ...]]:
    """Costs of the models at a revision, each as it is configured there, or as here where it is not.

    Args:
        revision: anything that git understands.
        config: the configuration here.
        models: those that are measured.
        cache: folder of measurements; None for none.
        jobs: parallel processes; None for automatic.
        around: given how many models are to be measured, opens while they are.

    Returns:
        The baseline, without the models that the revision does not have, and a sentence for each of those.

    Raises:
        InputError: no such revision; or its models import from the working tree, so that it cannot be told.
    """
    with checked_out(revision, config.folder) as checkout:
        theirs = checkout.folder / config.path.name
        known = {model.name: model for model in _configured(theirs)}
        wanted = [known.get(model.name, model) for model in models if checkout.folder.is_dir()]
        costs = measure_models(
            wanted,
            checkout.folder,
            cache=cache,
            jobs=jobs,
            variant="revision",
            paths=(checkout.original, checkout.root),
            around=around,
        )
        _refuse_ours(revision, costs.read, checkout)
    measured = {
        n: found for n, found in costs.found.items() if isinstance(found, ModelCost) and not found.unknown_ops
    }
    inputs = {m.name: tuple(map(str, m.inputs)) for m in wanted}
    notes = tuple(_missing(revision, [m.name for m in models], costs))
    return Baseline(revision, measured, inputs, saved=False), notes


def _configured(path: Path) -> tuple[ConfiguredModel, ...]:
    try:
        return read_config(path).models if path.is_file() else ()
    except InputError:  # before [tool.iftplan] was begun, or as another version wrote it
        return ()


def _refuse_ours(revision: str, read: Iterable[str], checkout: Checkout) -> None:
    """A package that is installed from the working tree would be measured in place of the revision's."""
    for key in sorted(read):
        kind, _, place = key.partition(":")
        if kind == "file" and Path(place).is_absolute() and Path(place).is_relative_to(checkout.original):
            raise InputError(
                f"at {revision} the models import {Path(place).relative_to(checkout.original)} from the working tree, where an installed package points to; name the source by its file, as in path/file.py:factory, or install the package without -e."
            )


def _missing(revision: str, names: Sequence[str], costs: Costs) -> Iterable[str]:
    for name in names:
        found = costs.found.get(name)
        if found is None:
            yield f"{name} is not there at {revision}"
        elif isinstance(found, Failure):
            yield f"{name} has no cost at {revision}: {found.message}"
        elif found.unknown_ops:
            yield f"{name} has no cost at {revision}: {', '.join(found.unknown_ops)} has no formula there"
