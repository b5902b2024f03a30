"""A run on two hosts, each a network namespace: run by `unshare --net --mount`, prints what came of it as JSON.

`killed`: a worker is killed with signal 9. `cut`: the second host is cut off and then dies, the first goes on without it,
and the second comes back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes.hosts.namespaces import add_host, prepare, remove_host, run, started, until

RENDEZVOUS = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=3,join_timeout=120"


def launch(number: int, nodes: str, folder: Path, words: list[str], log: str = "") -> subprocess.Popen[bytes]:
    """Torchrun on one host, with one process."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", nodes, "--nproc-per-node", "1"),
        *("--max-restarts", "3", "--monitor-interval", "0.5", "--rdzv-id", "run", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "10.9.1.2:29400", "--local-addr", f"10.9.{number}.2"),
        *("--rdzv-conf", f"{RENDEZVOUS},is_host={int(number == 1)}"),
        *("-m", "iftplan", "train", "--out", "out", "--auto-resume", *words),
    ]
    environment = {"GLOO_SOCKET_IFNAME": f"port{number}", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return started(number, command, folder, environment, log)


def steps(folder: Path) -> list[int]:
    """Steps of the rows that are in the run's metrics."""
    path = folder / "out" / "metrics.csv"
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return [int(line.split(",")[0]) for line in lines]


def said(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("host*")))


def worker(number: int, agent: int) -> int:
    """Number of the process that an agent started: ip's child is torchrun, whose child trains."""
    found = subprocess.run(["pgrep", "-P", str(agent)], capture_output=True, text=True).stdout.split()
    return int(found[0])


def main(kind: str, folder: Path, words: list[str]) -> None:
    """Run the scenario, and print exit statuses."""
    prepare()
    add_host(1)
    add_host(2)
    nodes = "2" if kind == "killed" else "1:2"
    agents = [launch(number, nodes, folder, words) for number in (1, 2)]
    until(lambda: len(steps(folder)) >= 2, "the run")
    if kind == "killed":
        os.kill(worker(2, agents[1].pid), signal.SIGKILL)
        codes = [agent.wait(600) for agent in agents]
    else:
        run("ip link set hub2 down")
        until(lambda: "continues on 1" in said(folder), "the first host alone")
        subprocess.run(["pkill", "-KILL", "-P", str(agents[1].pid)], check=False)
        agents[1].kill()
        agents[1].wait()
        remove_host(2)
        add_host(2)
        agents[1] = launch(2, nodes, folder, words, "host2again")
        codes = [agent.wait(600) for agent in agents]
    json.dump({"codes": codes}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
