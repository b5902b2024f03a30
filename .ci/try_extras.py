"""What was built, installed as users install it, each extra in an environment that had nothing before, and used there.

`python .ci/try_extras.py dist [--only bare,report] [--constraints constraints.txt] [--keep FOLDER]`
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

BARE = (
    "iftplan --version",
    "iftplan solve --layer conv3x3:64-128@16x16 --sparsity 0.75",
    "iftplan plan zoo:resnet18 --transform wide --sparsity 0.75 -o wide.json",
    "iftplan plan zoo:resnet18 --transform parallel --sparsity 0.75 -o parallel.json",
    "iftplan diff wide.json parallel.json",
    "iftplan explore zoo:resnet18 -o explore.html",
    "iftplan check bundled",
    "iftplan pareto --paper --task CIFAR-100",
    """python -c 'import iftplan as ift; print(ift.__version__, ift.plan("zoo:bert-small", "doped", 0.75).to_dataframe())'""",
)
"""What works without PyTorch."""

SPARSE = 'import torch; from iftplan import nn; net = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3))); sparse = nn.sparsify(net, "1/2")'

EXTRAS: Mapping[str, Sequence[str]] = {
    "bare": ("! iftplan check", "! iftplan audit wide.json"),
    "torch": (
        "iftplan check",
        "iftplan audit wide.json",
        f"python -c '{SPARSE}; nn.Masking(sparse, torch.optim.SGD(sparse.parameters(), 0.1), \"rigl\", steps=1000)'",
    ),
    "transformers": ("iftplan spec hf:config.json -o bert.json", "iftplan plan bert.json --transform doped"),
    "train": ("iftplan train --recipe digits --steps 3 --out run",),
    "report": (
        "iftplan diff wide.json parallel.json --format html -o diff.html",
        "iftplan diff wide.json parallel.json --format junit -o diff.xml",
        "iftplan diff wide.json parallel.json --format sarif -o diff.sarif",
        "iftplan pareto --paper --task CIFAR-100 -o pareto.html",
    ),
    "sweep": (
        "iftplan sweep zoo:digits-cnn --transforms wide,doped --sparsities 0.5,0.75 -o table.parquet",
        "iftplan sweep zoo:digits-cnn --transforms wide,doped --sparsities 0.5,0.75 -o table.csv",
    ),
    "cluster": (
        "iftplan sweep zoo:digits-cnn --transforms wide --sparsities 0.75 --train --steps 2 --submit local --out jobs -o table.csv",
    ),
    "bench": ("iftplan bench --layer linear:64-64@8 --sparsity 0.9 --rounds 1",),
    "onnx": (f"""python -c '{SPARSE}; nn.to_onnx(sparse, "2x8", "sparse.onnx")'""",),
    "jax": (
        "iftplan spec jax_net.py:net --framework jax -o jax.json",
        "iftplan audit jax_net.py:net --framework jax --budget 1K",
        "iftplan plan jax.json --transform parallel",
    ),
    "all": ("iftplan audit wide.json --format html -o audit.html",),
}
"""Extra → what is done with it beside what works without any; `!` before what is refused with the extra to install."""

TOOLS: Mapping[str, str] = {
    "uv": "uv tool run --from {wheel} iftplan solve --layer conv3x3 --sparsity 0.75",
    "pipx": "pipx run --spec {wheel} iftplan solve --layer conv3x3 --sparsity 0.75",
}
"""Runners of tools that are installed for one command → the command."""

FILES: Mapping[str, str] = {
    "iftplan.toml": '[models.bundled]\nsource = "zoo:resnet18"\nbudget.macs = "1.9G"\n[models.own]\nsource = "net.py:net"\ninputs = ["1x8"]\n',
    "jax_net.py": "import jax\nfrom flax import linen\n\n\ndef net():\n    return linen.Sequential([linen.Dense(8) for _ in range(3)]), jax.numpy.ones((1, 8))\n",
    "net.py": "from torch import nn\n\n\ndef net():\n    return nn.Linear(8, 8)\n",
    "config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 100}',
}
"""What the commands read."""


def main() -> None:
    """Try everything that is asked for, one after the other, and end with what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path)
    parser.add_argument(
        "--only", default="", help="extras, sdist, uv and pipx, separated by commas; all if empty"
    )
    parser.add_argument("--constraints", help="file of releases that pip takes")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is left behind")
    given = parser.parse_args()
    (wheel,), (sdist,) = ([*given.dist.resolve().glob(pattern)] for pattern in ("*.whl", "*.tar.gz"))
    names = given.only.split(",") if given.only else [*EXTRAS, "sdist", *TOOLS]
    if unknown := sorted({*names} - {*EXTRAS, "sdist", *TOOLS}):
        sys.exit(f"There is no {', '.join(unknown)}; known are {', '.join([*EXTRAS, 'sdist', *TOOLS])}.")
    pins = ["-c", str(Path(given.constraints).resolve())] if given.constraints else []
    with tempfile.TemporaryDirectory() as scratch:
        failed = [name for name in names if not tried(name, wheel, sdist, pins, given.keep or Path(scratch))]
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")
    print(f"All of {', '.join(names)} install and work.")


def tried(name: str, wheel: Path, sdist: Path, pins: Sequence[str], folder: Path) -> bool:
    """Whether one of them installs into an environment of its own and all its commands end well.

    Args:
        name: an extra, "bare", "sdist", or a runner of tools.
        wheel: that is tried.
        sdist: that is tried as "sdist".
        pins: further arguments of pip.
        folder: to work in.
    """
    print(f"\n--- {name}", flush=True)
    place = folder / name
    venv.create(place / "venv", clear=True, with_pip=True)
    for file, text in FILES.items():
        (place / file).write_text(text, encoding="utf-8")
    wanted = {"bare": str(wheel), "sdist": str(sdist), **{tool: tool for tool in TOOLS}}
    what = wanted.get(name, f"{wheel}[{name}]")
    commands = (
        [TOOLS[name].format(wheel=shlex.quote(str(wheel)))]
        if name in TOOLS
        else [*BARE, *EXTRAS.get(name, ())]
    )
    install = f"python -m pip install --quiet {shlex.join([*pins, what])}"
    return all(ran(command, place) for command in (install, *commands))


def ran(command: str, place: Path) -> bool:
    """Whether a command of an environment ends as it should; its output is shown where it does not."""
    program, *words = shlex.split(command.removeprefix("! "))
    done = subprocess.run(
        [place / "venv" / "bin" / program, *words],
        cwd=place,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    refused = done.returncode == 2 and "pip install 'iftplan[" in done.stderr
    good = refused if command.startswith("! ") else done.returncode == 0
    print(f"{'ok' if good else 'FAILED'}: {command}", flush=True)
    if not good:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return good


if __name__ == "__main__":
    main()
