"""What processes that tests start inherit: Ctrl-C reaches them, and they keep their bytecode.

Ctrl-C also where the suite itself runs in the background of a shell; bytecode also where the environment says not to write it,
for some thousand processes would each compile the package anew.
"""

from __future__ import annotations

import os
import signal
import threading

if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    and threading.current_thread() is threading.main_thread()
):
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
