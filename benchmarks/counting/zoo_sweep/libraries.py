"""The libraries that are swept, as far as they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from zoo_sweep.diffusion import diffusers_entries
from zoo_sweep.entry import Entry
from zoo_sweep.images import segmentation_entries, timm_entries, torchvision_entries
from zoo_sweep.transformer import transformers_entries

LIBRARIES: Mapping[str, tuple[str, Callable[[], Iterator[Entry]]]] = {
    "torchvision": ("torchvision", torchvision_entries),
    "timm": ("timm", timm_entries),
    "segmentation-models": ("segmentation_models_pytorch", segmentation_entries),
    "transformers": ("transformers", transformers_entries),
    "diffusers": ("diffusers", diffusers_entries),
}
"""Library → the package that has to be there, and its models."""


def entries(libraries: Sequence[str]) -> Iterator[Entry]:
    """The models of those that are installed."""
    for name in libraries:
        package, models = LIBRARIES[name]
        if find_spec(package) is not None:
            yield from models()


def versions() -> Mapping[str, str]:
    """Library → its version, of those that are installed."""
    found = {}
    for name in ("torch", "torchvision", "timm", "segmentation-models-pytorch", "transformers", "diffusers"):
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return found
