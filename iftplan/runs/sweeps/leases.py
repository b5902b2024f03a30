"""Who trains which trial: locks on a shared disk, or leases in a database that hosts without one share.

A lock is given back by the system when its holder dies. A lease runs out: its holder renews it while it trains, and
who does not renew it within `SECONDS` loses it to whoever asks next. The end is on the database's clock for those who
ask, and on the holder's own for the holder, counted from before it asked: so it stops first. Optuna's heartbeats
are not enough here. They have no holder, so a worker that was only slow could not notice that its trial was given
away, and they are documented not to work with trials that are asked for one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import sqlalchemy as sql
from filelock import FileLock, Timeout
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from iftplan.base.errors import MeasureError
from iftplan.runs.sweeps.outages import PATIENCE, PAUSE, silent, through_outages

SECONDS = 60.0
"""Time after which a worker that does not answer loses its trial."""
_RENEWALS = 4
"""Tries to renew a lease in the time that it holds."""
_T = TypeVar("_T")
_GUARD = ".guard"
_LEASES = sql.Table(
    "iftplan_leases",
    sql.MetaData(),
    sql.Column("study", sql.String(255), primary_key=True),
    sql.Column("name", sql.String(255), primary_key=True),
    sql.Column("holder", sql.String(32), nullable=False),
    sql.Column("expires", sql.Double, nullable=False),  # seconds since 1970 on the database's clock
)


class LostError(MeasureError):
    """The trial was given to another worker, since this one did not renew its lease in time."""


class Lease(Protocol):
    """A trial that is one worker's."""

    def kept(self) -> bool:
        """Whether the trial is still this worker's."""

    def release(self) -> None:
        """Give the trial back."""


class Leases(Protocol):
    """The trials of a study that workers hold."""

    def guard(self) -> AbstractContextManager[object]:
        """Context in which no other worker asks for trials."""

    def take(self, name: str) -> Lease | None:
        """Lease of a trial; None where another worker has it."""


class FileLease:
    """A trial held by a locked file."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def kept(self) -> bool:
        """Always: the system takes no lock from a process that lives."""
        return True

    def release(self) -> None:
        """Unlock the file."""
        self._lock.release()


class FileLeases:
    """Locked files in a directory that all workers see.

    Args:
        directory: of the sweep.
        study: of the trials.
    """

    def __init__(self, directory: Path, study: str) -> None:
        self._locks = directory / ".locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._guard = FileLock(str(self._locks / f"{study}.guard"))

    def guard(self) -> AbstractContextManager[object]:
        """The lock of the whole study."""
        return self._guard

    def take(self, name: str) -> FileLease | None:
        """Lock of a trial; None where another worker has it."""
        lock = FileLock(str(self._locks / name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return FileLease(lock)


class DatabaseLease:
    """A trial held by a row that runs out unless its holder renews it, which a thread does until the release.

    Args:
        leases: of the database.
        name: of the trial.
        holder: of the lease.
        until: end of the lease, in seconds of the database's clock.
    """

    def __init__(self, leases: DatabaseLeases, name: str, holder: str, until: float) -> None:
        self._leases, self._name, self._holder, self._until = leases, name, holder, until
        self._lost, self._over = False, Event()
        self._thread = Thread(target=self._renew_often, daemon=True)
        self._thread.start()

    def kept(self) -> bool:
        """Whether the trial is still this worker's.

        Past the lease's end, the database is asked, for as long as it takes to answer.

        Raises:
            MeasureError: it does not.
        """
        end = time.monotonic() + PATIENCE
        while not self._lost and time.monotonic() >= self._until:
            if (error := self._renew()) and time.monotonic() > end:
                raise silent(error) from error
            if error:
                time.sleep(PAUSE)
        return not self._lost

    def release(self) -> None:
        """Remove the row; where the database does not answer, it runs out."""
        self._over.set()
        self._thread.join()
        with suppress(sql.exc.DBAPIError):
            self._leases.remove(self._name, self._holder)

    def _renew(self) -> Exception | None:
        """Renew the lease, or learn that it is lost; the error where the database does not answer."""
        until = time.monotonic() + self._leases.seconds
        try:
            self._lost = not self._leases.renew(self._name, self._holder)
        except sql.exc.DBAPIError as error:
            return error
        self._until = until
        return None

    def _renew_often(self) -> None:
        wait = self._leases.seconds / _RENEWALS
        while not self._lost and not self._over.wait(wait):
            wait = PAUSE if self._renew() else self._leases.seconds / _RENEWALS


class DatabaseLeases:
    """Rows of a table in the database of the record.

    Args:
        engine: of the database.
        study: of the trials.
        seconds: for which a lease holds unless it is renewed.
    """

    def __init__(self, engine: sql.Engine, study: str, seconds: float = SECONDS) -> None:
        self._engine, self._study, self.seconds = engine, study, seconds
        at_once(lambda: _LEASES.metadata.create_all(engine))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Lease of the whole study, which runs out where its holder is cut off."""
        holder = uuid4().hex
        while not through_outages(self._taken)(_GUARD, holder):
            time.sleep(PAUSE / 5)
        try:
            yield
        finally:
            with suppress(sql.exc.DBAPIError):  # it runs out
                self.remove(_GUARD, holder)

    def take(self, name: str) -> DatabaseLease | None:
        """Lease of a trial; None where another worker has it."""
        holder, until = uuid4().hex, time.monotonic() + self.seconds
        return DatabaseLease(self, name, holder, until) if self._taken(name, holder) else None

    def renew(self, name: str, holder: str) -> bool:
        """Let a lease hold from now on; False where it is another's."""
        with self._engine.begin() as connection:
            asked = sql.update(_LEASES).where(*self._row(name), _LEASES.c.holder == holder)
            return bool(connection.execute(asked.values(expires=self._end())).rowcount)

    def remove(self, name: str, holder: str) -> None:
        """Remove a lease, if it is this holder's."""
        with self._engine.begin() as connection:
            connection.execute(sql.delete(_LEASES).where(*self._row(name), _LEASES.c.holder == holder))

    def _taken(self, name: str, holder: str) -> bool:
        """Whether the lease was nobody's, or had run out, and is this holder's now."""
        new = {"holder": holder, "expires": self._end()}
        with self._engine.begin() as connection:
            late = sql.update(_LEASES).where(*self._row(name), _LEASES.c.expires < self._now())
            if connection.execute(late.values(new)).rowcount:
                return True
            if connection.execute(sql.select(_LEASES.c.holder).where(*self._row(name))).first():
                return False
        try:
            with self._engine.begin() as connection:
                row = {"study": self._study, "name": name, **new}
                connection.execute(sql.insert(_LEASES).values(row))
        except IntegrityError:  # another was faster
            return False
        return True

    def _row(self, name: str) -> tuple[sql.ColumnElement[bool], sql.ColumnElement[bool]]:
        return _LEASES.c.study == self._study, _LEASES.c.name == name

    def _end(self) -> sql.ColumnElement[Any]:
        return self._now() + self.seconds

    def _now(self) -> sql.ColumnElement[Any]:
        match self._engine.dialect.name:
            case "mysql" | "mariadb":
                return sql.func.unix_timestamp(sql.func.now(6))
            case "sqlite":
                return (sql.func.julianday("now") - 2440587.5) * 86400.0
            case _:
                return sql.cast(sql.extract("epoch", sql.func.clock_timestamp()), sql.Double)


def at_once(make: Callable[[], _T]) -> _T:
    """Result of a function that makes tables, though other workers make the same ones at the same time."""
    for _ in range(9):
        try:
            return make()
        except (IntegrityError, ProgrammingError, OperationalError) as error:
            if isinstance(error, OperationalError) and "exists" not in str(error):
                raise
            time.sleep(PAUSE)
    return make()
