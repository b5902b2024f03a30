"""Hosts that are network namespaces of this machine, for whoever runs as `unshare --net --mount`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path


def no_namespaces() -> str:
    """Why this machine makes no network namespaces; "" where it does."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "not installed: unshare, ip"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True
    )
    return tried.stderr.decode().strip()


def run(text: str) -> None:
    """Run a command that has to succeed."""
    subprocess.run(text.split(), check=True)


def prepare() -> None:
    """Give this process a place for namespaces of its own."""
    run("mount -t tmpfs none /run")
    run("ip link set lo up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # hosts reach each other through this one


def add_host(number: int) -> None:
    """Make the namespace of a host, with a cable to this one: 10.9.NUMBER.2 there, 10.9.NUMBER.1 here."""
    run(f"ip netns add host{number}")
    run(f"ip link add hub{number} type veth peer name port{number}")
    run(f"ip link set port{number} netns host{number}")
    run(f"ip addr add 10.9.{number}.1/24 dev hub{number}")
    run(f"ip link set hub{number} up")
    inside = f"ip netns exec host{number} ip"
    run(f"{inside} link set lo up")
    run(f"{inside} addr add 10.9.{number}.2/24 dev port{number}")
    run(f"{inside} link set port{number} up")
    run(f"{inside} route add default via 10.9.{number}.1")


def remove_host(number: int) -> None:
    """Take a host away with its cable and all that its network still holds, as when its power fails.

    Its processes have to be dead; without this the system would send what they had written before they died.
    """
    run(f"ip link del hub{number}")
    run(f"ip netns del host{number}")


def started(
    number: int, command: list[str], folder: Path, environment: Mapping[str, str], log: str = ""
) -> subprocess.Popen[bytes]:
    """A command as it is started on one host.

    Args:
        number: of the host.
        command: its words.
        folder: that it runs in, and that what it says is written to.
        environment: of it.
        log: name of the file for that; host1 or host2 where none is given.
    """
    inside = ["ip", "netns", "exec", f"host{number}", *command]
    with (folder / (log or f"host{number}")).open("w") as said:
        return subprocess.Popen(
            inside, cwd=folder, env={**os.environ, **environment}, stdout=said, stderr=said
        )


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for at most ten minutes."""
    end = time.monotonic() + 600
    while not true():
        assert time.monotonic() < end, f"{what} does not go on"
        time.sleep(0.05)
