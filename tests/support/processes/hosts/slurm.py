"""A sweep as jobs of Slurm on two hosts, each a network namespace: run by `unshare --net --mount`.

Slurm is a cluster of the test's own: Munge and a controller in the namespace of this process, a node on each host. The
program prints what came of the sweep as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.processes.hosts.namespaces import add_host, prepare, started, until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
QUEUE = ("squeue", "--noheader", "--array", "--states=running", "--format")
NODES = (1, 2)
CONFIGURATION = """
ClusterName=test
SlurmctldHost={name}(10.9.1.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=300
KillWait=1
MessageTimeout=60
PartitionName=all Nodes=host1,host2 Default=YES State=UP
NodeName=host1 NodeAddr=10.9.1.2
NodeName=host2 NodeAddr=10.9.2.2
"""


def missing() -> str:
    """What the cluster needs and is not installed; "" where all is there."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Slurm on the hosts, idle; the environment of this process then leads its commands there."""
    (folder / "state").mkdir()
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(name=socket.gethostname(), folder=folder))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # works without a mount of its own
    os.environ["SLURM_CONF"] = str(configuration)
    folder.chmod(0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    files = (f"--{name}-file={folder}/munge.{name}" for name in ("pid", "seed"))
    munged = ["munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge", *files]
    daemons = [subprocess.Popen(munged, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)]
    until((folder / "munge").exists, "munged")
    try:
        daemons.append(subprocess.Popen(["slurmctld", "-D"], stderr=subprocess.DEVNULL))
        daemons += [started(n, ["slurmd", "-D", "-N", f"host{n}"], folder, {}, f"node{n}") for n in NODES]
        until(lambda: states() == ["idle", "idle"], "Slurm")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in reversed(daemons):
            daemon.wait(60)


def states() -> list[str]:
    """What the nodes are doing, as `sinfo` says it."""
    return said("sinfo", "--noheader", "--Node", "--format=%t")


def said(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True).stdout.split()


def main(folder: Path, words: list[str]) -> None:
    """Submit the sweep, cancel the job of the second host in the middle, and print what the command said."""
    prepare()
    for number in NODES:
        add_host(number)
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, cluster(Path(name)):
        command = [sys.executable, "-m", "iftplan", *words]
        sweep = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until(lambda: sorted(said(*QUEUE, "%N")) == ["host1", "host2"], "a job on each host")
        until(lambda: len(list(folder.glob("runs/*/result.json"))) >= 2, "the sweep")
        (job,) = said(*QUEUE, "%i", "--nodelist=host2")
        subprocess.run(["scancel", job], check=True)
        out, err = sweep.communicate(timeout=900)
    json.dump({"code": sweep.returncode, "out": out, "err": err, "cancelled": job}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
