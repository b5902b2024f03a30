"""The trials of a sweep, shared by processes and machines: each is trained once, whoever is killed when.

Optuna keeps the record, in a journal that is one file on a disk which all workers see, or in a database: it is alive
and brings searches over several objectives. What it does not know is whether a worker still lives. So a worker holds
its trial for as long as it trains, by a locked file or a lease in the database; a trial that is running and not held
is anybody's to continue. `result.json` says that a trial is finished: where a worker died between writing it and
telling the record, the next one tells it. A call that a kill may cut off at any place can also be repeated, and is
where a database does not answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from iftplan.base.documents import loads
from iftplan.base.errors import InputError, error_text, one_line
from iftplan.runs.sweeps.leases import SECONDS, DatabaseLeases, FileLeases, Lease, Leases, LostError, at_once
from iftplan.runs.sweeps.outages import through_outages

Ask = Callable[[optuna.Study], optuna.Trial]
_NAME = "name"


class JournalLock:
    """Lock of a journal: released when its holder ends; taking it removes a partial last line of the journal.

    Optuna's own lock is a file that a killed process leaves behind, for others to wait half a minute at; and a line
    that was written by half would spoil the next one.
    """

    def __init__(self, journal: str) -> None:
        self._journal = Path(journal)
        self._lock = FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        """Wait for the lock, and remove the partial line that a killed writer left."""
        self._lock.acquire()
        _mend(self._journal)
        return True

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()


def _lock(journal: str) -> Any:
    """As Optuna takes it, whose own base class is not public."""
    return JournalLock(journal)


def _mend(journal: Path) -> None:
    with suppress(FileNotFoundError), journal.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def storage_at(place: str) -> optuna.storages.BaseStorage:
    """A journal file, or a database where the place is a URL.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        if "://" in place:
            return at_once(lambda: optuna.storages.RDBStorage(place, _engine_settings(place)))
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        _check_lines(Path(place))
        with _readable(place):
            return optuna.storages.JournalStorage(JournalFileBackend(place, _lock(place)))
    except InputError:
        raise
    except Exception as error:  # of whichever driver a URL names
        raise InputError(
            f"--storage {place} cannot be opened ({error_text(error)}); name a file on a disk that all workers see, or the URL of a database."
        ) from error


def leases_at(place: str, study: str, directory: Path, seconds: float = SECONDS) -> Leases:
    """Leases in a database where the place is a URL, else locked files in the directory.

    Args:
        place: of the record.
        study: of the trials.
        directory: of the sweep.
        seconds: for which a lease holds unless it is renewed.
    """
    if "://" not in place:
        return FileLeases(directory, study)
    return DatabaseLeases(sqlalchemy.create_engine(place, **_engine_settings(place)), study, seconds)


def _engine_settings(url: str) -> dict[str, Any]:
    """Settings of a database's client: a connection for each question, and seconds until one is given up."""
    settings: dict[str, Any] = {"poolclass": sqlalchemy.NullPool}
    if url.startswith("postgresql"):
        settings["connect_args"] = {
            "connect_timeout": 10,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 25000,
        }
    return settings


def _check_lines(journal: Path) -> None:
    """Refuse a journal with a line that no worker wrote; the last may be half a line, which is cut off later."""
    try:
        *whole, _ = journal.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for i, line in enumerate(whole, start=1):
        try:
            entry = loads(line.decode(), f"{journal}, line {i}")
            sound = type(entry.get("op_code")) is int and isinstance(entry.get("worker_id"), str)
        except (InputError, UnicodeDecodeError):
            sound = False
        if not sound:
            raise InputError(
                f"{journal}, line {i} is not an entry of a journal, so the state of the trials is not known. Remove "
                "the file and run the same command again; results that exist are reused."
            )


@contextmanager
def _readable(place: str) -> Iterator[None]:
    """Turn what a record with impossible entries makes of Optuna into a refusal."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:  # assertions, keys and types, wherever the entry is looked at
        told = one_line(error, 200) or "no message"
        raise InputError(
            f"the record of the trials, {place}, cannot be read ({type(error).__name__}: {told}). Remove it and "
            "run the same command again; results that exist are reused."
        ) from error


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that is this worker's, while it holds the lease.

    Attributes:
        name: of the trial and of its run directory.
        number: in the study.
        params: what a search chose; empty in a grid.
    """

    name: str
    number: int
    params: Mapping[str, Any]
    lease: Lease


class TrialQueue:
    """The trials of one study.

    Args:
        storage: of the record.
        study: its name.
        directory: where the trials' run directories are.
        limit: how many trials a search has; a grid has those that were added.
        ask: how a search makes its next trial; None in a grid.
        named: the name of the run that a trial's settings say; "" where it was killed before it had all of them.
        leases: of the trials; None for locked files in the directory.
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        study: str,
        directory: Path,
        *,
        limit: int = 0,
        ask: Ask | None = None,
        named: Callable[[FrozenTrial], str] | None = None,
        leases: Leases | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # what happens is for us to say
        self.directory = directory
        self._leases = leases or FileLeases(directory, study)
        self._limit, self._ask, self._named = limit, ask, named or _given_name
        with self._leases.guard(), _readable(str(directory)):
            self._study = optuna.create_study(
                storage=storage, study_name=study, directions=["minimize", "minimize"], load_if_exists=True
            )

    @through_outages
    def add(
        self,
        names: Iterable[str],
        *,
        again: bool = False,
        has_result: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """Add the trials that are new.

        Args:
            names: of trials.
            again: add those that failed too.
            has_result: whether there is a result by that name; what is finished on record and has none is added too.
        """
        with self._leases.guard():
            there = self._latest()
            for name in names:
                found = there.get(name)
                failed = found is not None and found.state is TrialState.FAIL
                lost = found is not None and found.state is TrialState.COMPLETE and not has_result(name)
                if found is None or (again and failed) or lost:
                    self._study.enqueue_trial({}, user_attrs={_NAME: name})

    @through_outages
    def claim(self) -> Claim | None:
        """A trial to train: one whose worker is dead, or a new one; None where all others are at work or done."""
        with self._leases.guard():
            self._drop_half_asked()
            for begun in self._in(TrialState.RUNNING):  # first, for what a search asks next depends on it
                if claim := self._held(begun):
                    return claim
            while (trial := self._asked()) is not None:
                if claim := self._held(trial):
                    return claim
        return None

    def finish(self, claim: Claim, values: Iterable[float]) -> None:
        """Record the result of the trial, and release it.

        Raises:
            LostError: the trial was given to another worker.
        """
        self._tell(claim, TrialState.COMPLETE, list(values))

    def fail(self, claim: Claim, reason: str) -> None:
        """Record why the trial failed, and release it.

        Raises:
            LostError: the trial was given to another worker.
        """
        require_kept(claim)
        through_outages(self._study.set_user_attr)(claim.name, reason)
        self._tell(claim, TrialState.FAIL, None)

    def _tell(self, claim: Claim, state: TrialState, values: list[float] | None) -> None:
        require_kept(claim)
        with suppress(UpdateFinishedTrialError):  # told before: the connection broke before the answer came
            through_outages(self._study.tell)(claim.number, values, state, skip_if_finished=True)
        claim.lease.release()

    @through_outages
    def reasons(self) -> Mapping[str, str]:
        """Reason of each trial that failed, by name."""
        failed = {name for name, trial in self._latest().items() if trial.state is TrialState.FAIL}
        return {name: str(why) for name, why in self._study.user_attrs.items() if name in failed}

    def names(self) -> tuple[str, ...]:
        """Names of all trials with settings, in the order in which they were asked for."""
        return tuple(map(self._named, self.trials()))

    @through_outages
    def trials(self) -> tuple[FrozenTrial, ...]:
        """All trials that have settings, in the order in which they were asked for."""
        return tuple(t for t in self._study.get_trials(deepcopy=False) if self._named(t))

    @through_outages
    def left(self) -> list[str]:
        """Names of trials that were asked for and are neither finished nor failed."""
        return [self._named(trial) for trial in self._in(TrialState.WAITING, TrialState.RUNNING)]

    def ended(self) -> tuple[int, int]:
        """Number of trials that are finished or failed, and number that there are to be; one that is tried again is one."""
        if self._ask is not None:  # it may choose the same settings twice
            asked = len(self.trials())
            return asked - len(self.left()), max(asked, self._limit)
        latest = self._latest().values()
        return sum(trial.state.is_finished() for trial in latest), len(latest)

    def _latest(self) -> dict[str, FrozenTrial]:
        return {self._named(trial): trial for trial in self._study.get_trials(deepcopy=False)}

    def _in(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states)

    def _drop_half_asked(self) -> None:
        """Give up what was killed while it was asked for; asking is guarded, so nobody else can be at it."""
        for trial in self._in(TrialState.RUNNING):
            if not self._named(trial):
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _asked(self) -> FrozenTrial | None:
        """The next trial that nobody has begun, now begun."""
        if self._ask is None:
            asked = self._study.ask() if self._in(TrialState.WAITING) else None
        else:
            asked = self._ask(self._study) if len(self.names()) < self._limit else None
        return None if asked is None else self._study.get_trials(deepcopy=False)[asked.number]

    def _held(self, trial: FrozenTrial) -> Claim | None:
        """The trial, if nobody has it, and nobody finished it in the meantime."""
        name = self._named(trial)
        lease = self._leases.take(name)
        if lease is None:
            return None
        claim = None
        try:
            if not self._study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                claim = Claim(name, trial.number, trial.params, lease)
        finally:
            if claim is None:
                lease.release()
        return claim


def require_kept(claim: Claim) -> None:
    """Wait where the database does not answer, and refuse to go on with a trial that another worker has by now.

    Raises:
        LostError: the trial was given to another worker.
    """
    if not claim.lease.kept():
        raise LostError("this worker did not reach the database in time, so another one continues the trial")


def _given_name(trial: FrozenTrial) -> str:
    return str(trial.user_attrs[_NAME])
