"""Models of timm and torchvision, when they are installed; never their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from inspect import signature
from types import ModuleType

from iftplan.base.errors import InputError, error_text
from iftplan.base.suggestions import did_you_mean


def timm_factory(name: str) -> Callable[[], object]:
    """A timm model by its name.

    Raises:
        InputError: timm is missing or broken, or has no such model.
    """
    timm = _library("timm")
    if not timm.is_model(name):
        raise InputError(_unknown("timm", name, timm.list_models()))
    return lambda: timm.create_model(name, pretrained=False)


def torchvision_factory(name: str) -> Callable[[], object]:
    """A torchvision model by its name.

    Raises:
        InputError: torchvision is missing or broken, or has no such model.
    """
    models = _library("torchvision.models")
    if name not in models.list_models():
        raise InputError(_unknown("torchvision", name, models.list_models()))
    builder: Callable[..., object] = models.get_model_builder(name)
    # Detection models would otherwise download weights for their backbone.
    without = [p for p in ("weights", "weights_backbone") if p in signature(builder).parameters]
    return lambda: builder(**dict.fromkeys(without))


def _library(name: str) -> ModuleType:
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise InputError(f"{package} is not installed; install it with: pip install {package}") from error
        raise InputError(_broken(package, error)) from error
    except Exception as error:  # a build for another torch fails with RuntimeError, OSError, AttributeError …
        raise InputError(_broken(package, error)) from error


def _broken(package: str, error: Exception) -> str:
    return (
        f"{package} is installed but cannot be imported ({error_text(error)}); "
        f"it is often built for another torch: reinstall both from one place, such as pip install -U torch {package}"
    )


def _unknown(package: str, name: str, names: Iterable[str]) -> str:
    listed = f" {package}.list_models() lists what it has."
    return f"{package} has no model {name!r}.{did_you_mean(name, names, most=3, cutoff=0.6) or listed}"
