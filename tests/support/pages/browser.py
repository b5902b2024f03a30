"""A browser that opens pages without a screen, where the machine has one."""

import shutil
import subprocess
from pathlib import Path

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)


def dom(path: Path, milliseconds: int = 0) -> str:
    """The document as a browser has it after its scripts ran, and timers of so many milliseconds."""
    assert BROWSER
    waiting = [f"--virtual-time-budget={milliseconds}"] if milliseconds else []
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", *waiting, "--dump-dom", path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
