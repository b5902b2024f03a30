"""A training sweep as a value: which runs, or a search for them, where they are kept and where the record is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optuna.trial import FrozenTrial

from iftplan.base.documents import Document, digest
from iftplan.base.units import fraction
from iftplan.runs.document import parse_run, run_object, telling_settings
from iftplan.runs.settings import RunConfig
from iftplan.runs.sweeps.grid import run_name, run_of
from iftplan.runs.sweeps.queue import Claim, TrialQueue, leases_at, storage_at
from iftplan.runs.sweeps.search import SamplerName, Space, asking


@dataclass(frozen=True, slots=True)
class Search:
    """A search for runs.

    Attributes:
        sampler: what chooses the next trial.
        space: what from.
        trials: how many.
        base: all settings of a run that are not chosen.
    """

    sampler: SamplerName
    space: Space
    trials: int
    base: RunConfig

    def run_of(self, params: Mapping[str, Any]) -> RunConfig:
        """Run that a choice of the search stands for."""
        return run_of(self.space.plan(params), self.base, params["method"], self.base.seed)

    def name_of(self, trial: FrozenTrial) -> str:
        """The name of a trial's run; "" where it was killed before all of it was chosen."""
        try:
            return run_name(self.run_of(trial.params))
        except KeyError:
            return ""


@dataclass(frozen=True, slots=True)
class Campaign:
    """Settings that all workers of a sweep share.

    Attributes:
        directory: of the run directories.
        storage: of Optuna's record: a journal file, or the URL of a database.
        runs: of a grid, by name.
        search: in place of a grid.
        target: URL to which run directories are copied; "" where all workers see the directory.
    """

    directory: Path
    storage: str
    runs: Mapping[str, RunConfig] = field(default_factory=dict)
    search: Search | None = None
    target: str = ""

    @property
    def study(self) -> str:
        """Name of the study in Optuna's record: the same settings are the same study, whoever asks."""
        if self.search is None:
            return f"grid-{digest({'runs': sorted(self.runs)})[:12]}"
        found = _search_object(self.search)
        del found["trials"]  # more of them are the same search, continued
        found["base"] = telling_settings(self.search.base)
        del found["base"]["training"]["threads"]
        return f"{self.search.sampler}-{digest(found)[:12]}"

    def queue(self) -> TrialQueue:
        """Queue of the campaign's trials; those of a grid have still to be added."""
        storage = storage_at(self.storage)
        leases = leases_at(self.storage, self.study, self.directory)
        search = self.search
        if search is None:
            return TrialQueue(storage, self.study, self.directory, leases=leases)
        return TrialQueue(
            storage,
            self.study,
            self.directory,
            limit=search.trials,
            ask=asking(search.space, search.sampler, search.base.seed),
            named=search.name_of,
            leases=leases,
        )

    @contextmanager
    def on_this_host(self) -> Iterator[Campaign]:
        """The same campaign; with a target, in a directory of this process that is removed in the end."""
        if not self.target:
            yield self
            return
        with TemporaryDirectory(prefix="iftplan-sweep-") as directory:
            yield replace(self, directory=Path(directory))

    def run_of(self, claim: Claim) -> RunConfig:
        """Settings of a trial's run."""
        return self.runs[claim.name] if self.search is None else self.search.run_of(claim.params)


def campaign_object(campaign: Campaign) -> Document:
    """The campaign as a JSON object, for a worker in another process."""
    return {
        "directory": str(campaign.directory),
        "storage": campaign.storage,
        "runs": {name: run_object(run) for name, run in campaign.runs.items()},
        "search": _search_object(campaign.search) if campaign.search else None,
        "target": campaign.target,
    }


def parse_campaign(asked: Document) -> Campaign:
    """The campaign from the object that `campaign_object` wrote."""
    runs = {name: parse_run(settings, name) for name, settings in asked["runs"].items()}
    search = _parse_search(asked["search"]) if asked["search"] else None
    return Campaign(Path(asked["directory"]), asked["storage"], runs, search, asked["target"])


def _search_object(search: Search) -> Document:
    space = search.space
    return {
        "sampler": search.sampler,
        "trials": search.trials,
        "choices": {key: list(values) for key, values in space.choices.items()},
        "least": fraction(space.least),
        "most": fraction(space.most),
        "base": run_object(search.base),
    }


def _parse_search(asked: Document) -> Search:
    base = parse_run(asked["base"], "the sweep")
    choices = {key: tuple(values) for key, values in asked["choices"].items()}
    space = Space(choices, Fraction(asked["least"]), Fraction(asked["most"]), base.plan)
    return Search(asked["sampler"], space, asked["trials"], base)
