"""Ctrl-C reaches the processes that tests start, also where the suite itself runs in the background of a shell."""

from __future__ import annotations

import signal
import threading

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)
