"""A sweep on two hosts, each a network namespace: run by `unshare --net --mount`, prints what came of it as JSON.

The servers are in the namespace of this process, which no other network reaches. Host one is cut off for longer than a
lease holds while it trains, and the database crashes and is started again while it is away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna

from iftplan.runs.sweeps.queue import storage_at
from iftplan.runs.sweeps.targets import RunTarget
from tests.support.processes import databases, stores

CUT = 65.0


def run(text: str) -> None:
    """Run a command that has to succeed."""
    subprocess.run(text.split(), check=True)


def connected(number: int) -> None:
    """Make the namespace of a host, with a cable to this one."""
    run(f"ip netns add host{number}")
    run(f"ip link add hub{number} type veth peer name port{number}")
    run(f"ip link set port{number} netns host{number}")
    run(f"ip addr add 10.9.{number}.1/24 dev hub{number}")
    run(f"ip link set hub{number} up")
    inside = f"ip netns exec host{number} ip"
    run(f"{inside} link set lo up")
    run(f"{inside} addr add 10.9.{number}.2/24 dev port{number}")
    run(f"{inside} link set port{number} up")


def main(folder: Path, words: list[str]) -> None:
    """Run the sweep in the two namespaces, and print states, results and exit statuses."""
    run("mount -t tmpfs none /run")
    run("ip link set lo up")
    connected(1)
    connected(2)
    with stores.s3("0.0.0.0") as store, databases.postgresql("0.0.0.0") as server:
        os.environ.update(store)
        target = RunTarget(f"s3://{stores.BUCKET}/sweep")

        def ended() -> list[str]:
            found = target._files.find(target._root) if target._files.exists(target._root) else []
            return sorted(path.split("/")[-2] for path in found if path.endswith("/result.json"))

        hosts = [started(number, words, server.url, folder) for number in (1, 2)]
        until(lambda: len(ended()) >= 2)
        run("ip link set hub1 down")
        time.sleep(CUT / 2)
        server.stop()
        server.start()
        time.sleep(CUT / 2)
        run("ip link set hub1 up")
        codes = [host.wait(600) for host in hosts]
        storage = storage_at(server.url)
        (name,) = optuna.get_all_study_names(storage)
        states = [t.state.name for t in optuna.load_study(study_name=name, storage=storage).trials]
        results = {name: target.result(name) for name in ended()}
    json.dump({"codes": codes, "states": states, "results": results}, sys.stdout)


def started(number: int, words: list[str], url: str, folder: Path) -> subprocess.Popen[bytes]:
    """The sweep as it is started on one host."""
    hub = f"10.9.{number}.1"
    environment = dict(os.environ)
    environment["AWS_ENDPOINT_URL"] = environment["AWS_ENDPOINT_URL"].replace("127.0.0.1", hub)
    place = ["--out", f"s3://{stores.BUCKET}/sweep", "--storage", url.replace("127.0.0.1", hub)]
    command = ["ip", "netns", "exec", f"host{number}", sys.executable, "-m", "iftplan", *words, *place]
    with (folder / f"host{number}").open("w") as said:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)


def until(true: Callable[[], bool]) -> None:
    """Wait for at most ten minutes."""
    end = time.monotonic() + 600
    while not true():
        assert time.monotonic() < end, "the sweep does not go on"
        time.sleep(0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
