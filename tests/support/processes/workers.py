"""Processes that take trials from a queue and pretend to train them."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable

from iftplan.runs.sweeps.queue import TrialQueue

NAMES = [f"trial-{i}" for i in range(12)]


def forked(work: Callable[[], None]) -> int:
    """A process that does it and ends, without the clean-up of pytest."""
    # SQLite's lock on its memory would stay locked there, if such a thread had it
    assert not [thread.name for thread in threading.enumerate() if "_renew" in thread.name]
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def train_all(open_queue: Callable[[], TrialQueue], seconds: float) -> None:
    """A worker whose training is to wait; it fails where a result is there already."""
    queue = open_queue()
    while True:
        claim = queue.claim()
        if claim is None:
            if not queue.left():
                return
            time.sleep(0.005)
            continue
        record = queue.directory / f"{claim.name}.json"
        if not record.exists():
            time.sleep(seconds)
            with record.open("x") as file:  # a second training of a trial would fail here
                file.write(json.dumps(1.0))
        queue.finish(claim, (1.0, 2.0))


def ended(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
