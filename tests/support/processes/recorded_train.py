"""`iftplan train` that writes a digest of its masks after every step, and may die after one.

`torchrun --nproc-per-node 2 recorded_train.py LOGS STOP train …`: rank r writes LOGS/r.txt; with STOP 0 it ends by itself.
"""

from __future__ import annotations

import os
import sys
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from iftplan.cli.main import main
from iftplan.nn.masks.shards import whole
from iftplan.nn.training.loop import Loop


def record(folder: Path, stop: int) -> None:
    rank = int(os.environ.get("RANK", "0"))
    folder.mkdir(exist_ok=True)
    log, step = (folder / f"{rank}.txt").open("w"), Loop._step

    def recorded(loop: Loop) -> Tensor:
        loss = step(loop)
        assert loop.masks is not None
        masks = b"".join(whole(mask).contiguous().numpy().tobytes() for mask in loop.masks.masks().values())
        updates = loop.masks.exploration.updates
        print(loop.step, updates, sha256(masks).hexdigest(), file=log, flush=True)
        if loop.step == stop:
            os._exit(9)  # as abrupt as a signal
        return loss

    Loop._step = recorded  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    record(Path(sys.argv[1]), int(sys.argv[2]))
    sys.argv = ["iftplan", *sys.argv[3:]]
    main()
