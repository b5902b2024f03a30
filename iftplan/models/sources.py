"""What a MODEL argument says, read without a framework: which kind of source, and what in it.

`iftplan.nn.sources` builds the network that a source names.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from iftplan.base.errors import InputError
from iftplan.base.suggestions import did_you_mean
from iftplan.models.spec import InputSpec
from iftplan.models.zoo.entries import ZOO

_FORMS = (
    "zoo:NAME, hf:CONFIG.json[#ClassName], timm:NAME, torchvision:NAME, package.module:factory, "
    "path/file.py:factory or a model-spec .json"
)


class SourceKind(StrEnum):
    """Kind of place that a model comes from."""

    ZOO = "zoo"
    TRANSFORMERS = "hf"
    TIMM = "timm"
    TORCHVISION = "torchvision"
    MODULE = "module"
    FILE = "file"
    SPEC = "spec"


@dataclass(frozen=True, slots=True)
class Source:
    """One MODEL argument, taken apart.

    Attributes:
        text: as it was given.
        kind: which kind of source it is.
        target: the zoo, timm or torchvision name, the configuration's path, the module or the file.
        attribute: the factory in a module or file, the class for a configuration; empty if not given.
        inputs: the inputs it is counted with unless others are given; empty where only the built model
            (a configuration's image size), or nobody, can tell.
    """

    text: str
    kind: SourceKind
    target: str
    attribute: str = ""
    inputs: tuple[InputSpec, ...] = ()

    @property
    def runs_user_code(self) -> bool:
        """Whether building it runs Python that neither iftplan nor an installed library brought."""
        return self.kind in (SourceKind.MODULE, SourceKind.FILE)


def parse_source(text: str) -> Source:
    """Read a MODEL argument.

    Raises:
        InputError: it has none of the known forms, or names an unknown zoo model.
    """
    prefix, colon, rest = text.partition(":")
    match prefix if colon else "":
        case "zoo":
            return _zoo(text, rest)
        case "hf":
            path, _, class_name = rest.partition("#")
            return Source(text, SourceKind.TRANSFORMERS, _present(text, path, "a configuration"), class_name)
        case "timm" | "torchvision":
            return Source(text, SourceKind(prefix), _present(text, rest, "a model's name"))
        case _:
            return _factory_or_spec(text)


def _zoo(text: str, name: str) -> Source:
    if name not in ZOO:
        meant = did_you_mean(text, (f"zoo:{known}" for known in ZOO), most=3, cutoff=0.7)
        raise InputError(f"the zoo has no model {name!r}.{meant or ' It has ' + ', '.join(ZOO) + '.'}")
    return Source(text, SourceKind.ZOO, name, inputs=ZOO[name].inputs)


def _present(text: str, part: str, what: str) -> str:
    if not part:
        raise InputError(f"model {text!r} is incomplete: {what} must follow the colon.")
    return part


def _factory_or_spec(text: str) -> Source:
    place, colon, attribute = text.rpartition(":")
    if not colon and text.endswith(".json"):
        return Source(text, SourceKind.SPEC, text)
    if not colon and text.endswith(".py"):
        raise InputError(f"model {text!r} names a file but no factory in it; write {text}:FACTORY.")
    if not colon:
        raise InputError(f"model {text!r} is not a form that iftplan knows.{_nearest(text)}")
    if not attribute.isidentifier():
        raise InputError(
            f"model {text!r} must end with the name of a function or class without arguments, such as "
            f"{place or 'package.module'}:build; {attribute!r} is not a Python name."
        )
    if place.endswith(".py"):
        return Source(text, SourceKind.FILE, place, attribute)
    if all(part.isidentifier() for part in place.split(".")):
        return Source(text, SourceKind.MODULE, place, attribute)
    raise InputError(
        f"model {text!r} is not a form that iftplan knows: {place!r} is neither a .py file nor the name of a "
        "module."
    )


def _nearest(text: str) -> str:
    meant = did_you_mean(f"zoo:{text}", (f"zoo:{known}" for known in ZOO), cutoff=0.7)
    return meant or f" It must be one of {_FORMS}."
