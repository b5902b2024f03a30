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
from pathlib import Path

import optuna

from iftplan.runs.sweeps.queue import storage_at
from iftplan.runs.sweeps.targets import RunTarget
from tests.support.processes import databases, stores
from tests.support.processes.hosts.namespaces import add_host, prepare, run, started, until

CUT = 65.0


def main(folder: Path, words: list[str]) -> None:
    """Run the sweep in the two namespaces, and print states, results and exit statuses."""
    prepare()
    add_host(1)
    add_host(2)
    with stores.s3("0.0.0.0") as store, databases.postgresql("0.0.0.0") as server:
        os.environ.update(store)
        target = RunTarget(f"s3://{stores.BUCKET}/sweep")

        def ended() -> list[str]:
            found = target._files.find(target._root) if target._files.exists(target._root) else []
            return sorted(path.split("/")[-2] for path in found if path.endswith("/result.json"))

        hosts = [sweeping(number, words, server.url, folder) for number in (1, 2)]
        until(lambda: len(ended()) >= 2, "the sweep")
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


def sweeping(number: int, words: list[str], url: str, folder: Path) -> subprocess.Popen[bytes]:
    """The sweep as it is started on one host."""
    hub = f"10.9.{number}.1"
    place = ["--out", f"s3://{stores.BUCKET}/sweep", "--storage", url.replace("127.0.0.1", hub)]
    command = [sys.executable, "-m", "iftplan", *words, *place]
    store = os.environ["AWS_ENDPOINT_URL"].replace("127.0.0.1", hub)
    return started(number, command, folder, {"AWS_ENDPOINT_URL": store})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
