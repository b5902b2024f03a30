"""A PostgreSQL server of a test's own, on a port of this machine that was free."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PROGRAMS = ("initdb", "pg_ctl")


def missing() -> str:
    """What a server or its client needs and is not installed; "" where all is there."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    absent += [] if find_spec("psycopg") else ["psycopg"]
    return f"not installed: {', '.join(absent)}" if absent else ""


class Server:
    """A server whose data lie in a directory of its own.

    Args:
        folder: of the data.
        address: that it listens on.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self._address = address
        self._data, self._folder = folder / "data", folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", str(self._data), "-U", "iftplan", "-A", "trust", "--no-sync")
        if address != "127.0.0.1":
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write("host all all 10.0.0.0/8 trust\n")
        self.url = f"postgresql+psycopg://iftplan@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        options = f"-p {self.port} -k {self._folder} -h {self._address}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once, as a crash does: every connection breaks."""
        self._run("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def disconnect(self) -> None:
        """Break the connections of all clients."""
        ask = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and usename = 'iftplan'"
        self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "iftplan", "-c", ask, "postgres")

    def _run(self, *words: str) -> None:
        user: dict[str, Any] = {}
        if os.geteuid() == 0:  # a server refuses to run as root
            user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        # to a file, for the server would hold a pipe open
        with (self._folder / "said").open("w+") as said:
            done = subprocess.run(words, stdout=said, stderr=said, cwd=self._folder, check=False, **user)
            said.seek(0)
            assert done.returncode == 0, said.read()


@contextmanager
def postgresql(address: str = "127.0.0.1") -> Iterator[Server]:
    """A server that answers, stopped and removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        server = Server(folder, address)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
