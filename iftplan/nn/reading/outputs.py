"""Outputs of a model: the tensors whose sizes belong to the task and stay as they are."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

from torch import Tensor

# Fields of transformers' outputs that hand on what is inside the model …
_STATE: Final = re.compile(
    r"past_key_values|(^|_)attentions$|(^|_)hidden_states$|cache_params|^mems$|^state$|router_logits"
)
# … and those that are an answer only where nothing else is: of a base model without a head.
_FEATURES: Final = re.compile(r"last_hidden_state|hidden_state|pooler_output|pooled_output|extract_features")


def answers(output: Any) -> list[Tensor]:
    """The tensors that a model is asked for, in the order in which they stand in its output.

    Every tensor of a tuple, a dictionary, a dataclass or any nesting of them is one. Of an output of
    transformers, they are its heads (logits, boxes, embeddings); hidden states are among them only where there
    is no head, and caches, attention maps and outputs of parts never are, unless there is nothing else.
    """
    return list(_tensors(output, set()))


def held(output: Any) -> list[Tensor]:
    """Every tensor in a model's output, hidden states and caches among them."""
    return list(_tensors(output, set(), _members))


def _tensors(
    value: Any, seen: set[int], parts_of: Callable[[Any], Sequence[Any]] | None = None
) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
        return
    parts = (parts_of or _parts)(value)
    if parts and id(value) not in seen:
        for part in parts:
            yield from _tensors(part, seen | {id(value)}, parts_of)


def _parts(value: Any) -> Sequence[Any]:
    """What a container holds, of an output of transformers its heads; nothing for a value that is none."""
    if isinstance(value, Mapping) and hasattr(value, "to_tuple"):
        return _heads(dict(value))
    return _members(value)


def _members(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple | Set):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, f.name, None) for f in dataclasses.fields(value)]
    if isinstance(value, type | str | bytes) or callable(value):
        return []
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


def _heads(fields: Mapping[str, Any]) -> Sequence[Any]:
    """Of the fields of an output of transformers, those that are its answer."""
    own = {
        name: value for name, value in fields.items() if not (_STATE.search(name) or _is_part(name, value))
    }
    heads = [value for name, value in own.items() if not _FEATURES.search(name)]
    for group in (heads, list(own.values()), list(fields.values())):
        if any(True for value in group for _ in _tensors(value, set())):
            return group
    return []


def _is_part(name: str, value: Any) -> bool:
    """Whether it is all that a part answered, such as `vision_model_output`; a tensor is a prediction."""
    return name.endswith(("_output", "_outputs")) and not isinstance(value, Tensor)
