"""A transformers configuration, read as data: no remote code, nothing downloaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean

# How to compute is ours to choose, and naming a kernel would fetch it.
_HOW_TO_COMPUTE = ("attn_implementation", "experts_implementation", "quantization_config")


_HEADS = (
    *("SEQ_TO_SEQ_CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MASKED_LM", "CAUSAL_LM", "IMAGE_CLASSIFICATION"),
    *("OBJECT_DETECTION", "CTC", "AUDIO_CLASSIFICATION", "SEMANTIC_SEGMENTATION", "VIDEO_CLASSIFICATION"),
)
"""Tasks in transformers' tables; a model is most often counted with the first that it has."""


def transformers_factory(path: str, class_name: str = "") -> Callable[[], object]:
    """The model class that a config.json (or the folder that holds it) describes.

    The class is the configuration's first `architectures` entry unless one is given.

    Raises:
        InputError: no such file, malformed JSON, a configuration that asks for code or files of its own, or
            a class or model type that transformers does not have.
    """
    data = _read(path)
    _refuse_foreign(data, path)
    transformers = _transformers()
    config = _config(transformers, data, path)
    model_class = _model_class(transformers, config, class_name or _architecture(data, config, path), path)

    def factory() -> object:
        implementation = "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
        return model_class._from_config(config, attn_implementation=implementation, dtype="float32")

    return factory


def _read(path: str) -> dict[str, Any]:
    file = Path(path) / "config.json" if Path(path).is_dir() else Path(path)
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the configuration {file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the configuration {file} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise InputError(f"the configuration {file} must be a JSON object, not a {type(data).__name__}.")
    return data


def _refuse_foreign(data: Mapping[str, Any], path: str) -> None:
    if "auto_map" in data:
        raise InputError(
            f"the configuration {path} asks for Python code of its own (auto_map), which is never run; name a "
            "factory that builds the model instead (path/file.py:factory), or a transformers class with #ClassName "
            "in a copy without auto_map."
        )
    if isinstance(data.get("backbone"), str) or data.get("use_pretrained_backbone"):
        raise InputError(
            f"the configuration {path} loads its backbone from elsewhere ({data.get('backbone')!r}), which would "
            "be downloaded; put the backbone's own configuration into backbone_config."
        )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            f"hf: models need transformers, which cannot be imported ({error}); install it with: "
            "pip install 'iftplan[transformers]'"
        ) from error
    return transformers


def _config(transformers: Any, data: dict[str, Any], path: str) -> Any:
    model_type = data.get("model_type")
    known = transformers.CONFIG_MAPPING
    if not isinstance(model_type, str) or model_type not in known:
        meant = did_you_mean(str(model_type), known, most=3, cutoff=0.6)
        raise InputError(
            f"the configuration {path} has the model_type {model_type!r}, which transformers does not have."
            f"{meant or ' It must be one that it has, such as llama.'}"
        )
    kept = {
        k: v for k, v in data.items() if k.removeprefix("_").removesuffix("_internal") not in _HOW_TO_COMPUTE
    }
    try:
        return known[model_type].from_dict(kept)
    except Exception as error:  # each configuration class raises what it likes
        raise InputError(
            f"the configuration {path} is refused by transformers: {' '.join(str(error).split())}"
        ) from error


def _architecture(data: Mapping[str, Any], config: Any, path: str) -> str:
    match data.get("architectures"):
        case [str(name), *_]:
            return name
        case None | []:
            first, *others = _classes(config)
            without = f", or without its head: {' or '.join(others)}" if others else ""
            raise InputError(
                f"the configuration {path} names no architectures; add the class: hf:{path}#{first}{without}"
            )
        case other:
            raise InputError(f"architectures in {path} must be a list of class names, not {other!r}.")


def _classes(config: Any) -> list[str]:
    """The classes of a configuration, the one with the head that it is known for first."""
    from transformers.models.auto import modeling_auto as known

    tables = (getattr(known, f"MODEL_FOR_{head}_MAPPING_NAMES", {}) for head in _HEADS)
    heads = [table[config.model_type] for table in tables if config.model_type in table]
    bare = known.MODEL_MAPPING_NAMES.get(
        config.model_type, f"{type(config).__name__.removesuffix('Config')}Model"
    )
    found = [name for name in (*heads[:1], bare) if isinstance(name, str)]
    return list(dict.fromkeys(found)) or [f"{type(config).__name__.removesuffix('Config')}Model"]


def _model_class(transformers: Any, config: Any, name: str, path: str) -> Any:
    names = dir(transformers)
    found: Any = getattr(transformers, name) if name in names else None
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        meant = did_you_mean(name, names, most=3, cutoff=0.6)
        raise InputError(f"transformers has no model class {name!r} (for {path}).{meant}")
    wanted = getattr(getattr(found, "config_class", None), "model_type", None)
    if wanted != config.model_type:
        raise InputError(
            f"{name} is built from a {wanted} configuration, but {path} is a {config.model_type} one."
        )
    return found
