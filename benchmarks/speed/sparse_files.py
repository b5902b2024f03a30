"""Files of a sparse network: bytes on disk, seconds to write and to load, and whether outputs are equal.

    python benchmarks/speed/sparse_files.py [--model zoo:resnet18-cifar] [--transform none|wide] [--sparsity 0.9] [--rounds 5]

Against dense files (safetensors), the masked state dict, and two index forms: torch's compressed rows (values, columns
and row starts of 8 bytes, as torch has them) and coordinates. Loading is timed in interleaved rounds; the file is in the
page cache.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from safetensors.torch import load_file, save_model  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.masks import parse_mask  # noqa: E402
from iftplan.models.spec import InputSpec  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:resnet18-cifar")
    parser.add_argument("--transform", default="none", choices=["none", "wide"])
    parser.add_argument("--sparsity", default="0.9")
    parser.add_argument("--structures", default="unstructured")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    dense = ift_nn.build(given.model, device="cpu").eval()
    spec = ift.read_model(given.model)
    for structure in given.structures.split(","):
        sparsity = None if parse_mask(structure).density is not None else given.sparsity
        plan = ift.plan(spec, given.transform, sparsity, mask=structure)
        measure(ift_nn.apply(plan, dense).eval(), dense, structure, batch_of(spec.inputs[0]), given.rounds)


def measure(masked: nn.Module, dense: nn.Module, structure: str, example: Tensor, rounds: int) -> None:
    with TemporaryDirectory() as folder, torch.no_grad():
        place = Path(folder)
        files = {
            "dense": written(place / "dense", lambda path: save_model(dense, str(path))),
            "finalized": written(
                place / "final", lambda path: save_model(ift_nn.finalize(masked), str(path))
            ),
            "sparse": written(place / "sparse", lambda path: ift_nn.save_sparse(masked, path)),
            "sparse bf16": written(
                place / "half", lambda path: ift_nn.save_sparse(masked, path, dtype=torch.bfloat16)
            ),
            "sparse int8": written(
                place / "eighth", lambda path: ift_nn.save_sparse(masked, path, dtype=torch.int8)
            ),
        }
        rows, coordinates = index_forms(masked, files["finalized"][0])
        base = files["finalized"][0]
        print(f"{structure}, density of masks {density(masked):.4f}")
        for name, (size, seconds) in files.items():
            print(f"  {name:12} {size:12,} bytes  {size / base:6.3f}  written in {seconds:.2f} s")
        for name, size in (("csr", rows), ("coordinates", coordinates)):
            print(f"  {name:12} {size:12,} bytes  {size / base:6.3f}")
        shells = {name: ift_nn.finalize(masked) for name in ("finalized", "dense with masks", "compact")}
        loads: dict[str, Callable[[], object]] = {
            "finalized": lambda: shells["finalized"].load_state_dict(
                load_file(place / "final"), strict=False
            ),
            "dense with masks": lambda: ift_nn.load_sparse_(shells["dense with masks"], place / "sparse"),
        }
        times: dict[str, list[float]] = {name: [] for name in (*loads, "compact")}
        for _ in range(rounds):
            for name, load in loads.items():
                times[name].append(timed(load))
            with torch.device("meta"):
                shell = ift_nn.finalize(masked).to("meta")
            times["compact"].append(
                timed(lambda shell=shell: ift_nn.load_sparse_(shell, place / "sparse", execution="compact"))
            )
        first = median(times["finalized"])
        for name, seconds in times.items():
            print(f"  loaded {name:17} {median(seconds) * 1e3:8.1f} ms  {median(seconds) / first:6.2f}")
        expected = logits(masked(example))
        same = logits(shells["dense with masks"](example))
        near = logits(shell(example))
        apart = float((near - expected).abs().max() / expected.abs().max())
        print(
            f"  outputs: dense with masks equal to the bit {torch.equal(same, expected)}; compact apart {apart:.1e}"
        )


def written(path: Path, write: Callable[[Path], object]) -> tuple[int, float]:
    seconds = timed(lambda: write(path))
    return path.stat().st_size, seconds


def timed(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def density(model: nn.Module) -> float:
    masks = [weight.mask for weight in ift_nn.masked_weights(model)]
    return sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def index_forms(model: nn.Module, dense_bytes: int) -> tuple[int, int]:
    """Bytes with masked weights by compressed rows, and by two coordinates for each value."""
    rows = coordinates = dense_bytes
    for weight in ift_nn.masked_weights(model):
        kept, size = int(weight.mask.sum()), weight.parameter.itemsize
        rows += kept * (size + 8) + (len(weight.parameter) + 1) * 8 - weight.parameter.numel() * size
        coordinates += kept * (size + 16) - weight.parameter.numel() * size
    return rows, coordinates


def batch_of(inputs: InputSpec) -> Tensor:
    if inputs.dtype.startswith("int"):
        return torch.randint(0, 100, inputs.shape)
    return torch.randn(inputs.shape)


def logits(output: object) -> Tensor:
    found: Tensor = getattr(output, "logits", output)
    return found


if __name__ == "__main__":
    main()
