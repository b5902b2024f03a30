"""Machine profiles as documents: written once, read whenever a plan is made for time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from iftplan.base.documents import Document, check, duplicate_name, loads, read_text, with_digest
from iftplan.base.errors import InputError
from iftplan.base.units import fraction, parse_sparsity
from iftplan.base.user_folders import user_cache
from iftplan.base.validation import validate
from iftplan.masks import parse_mask
from iftplan.models.notation import layer_notation, parse_layer
from iftplan.plans.plan import Pass
from iftplan.plans.speed.profiles import Profile, ProfiledLayer
from iftplan.plans.speed.timings import TIMED, LayerPair

SCHEMA = "iftplan.profile/1"

_STRICT = ConfigDict(extra="forbid")
_Seconds = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=1)]


def default_place() -> Path:
    """Path at which a profile is written and looked for: `iftplan/profile.json` in the user's cache folder.

    Raises:
        InputError: this user has no home folder, and no cache folder was named.
    """
    try:
        return user_cache() / "profile.json"
    except RuntimeError as error:
        raise InputError(
            "there is no home folder for the machine profile. Set XDG_CACHE_HOME to a folder, or name the file: "
            "`iftplan bench --profile -o FILE`, then `profile='FILE'`."
        ) from error


def read_profile(path: str | None = None) -> Profile:
    """Profile of a machine from a file, or from where `iftplan bench --profile` writes it.

    Raises:
        InputError: it is not there, or cannot be read; says where in the document.
    """
    place = path or str(default_place())
    if place != "-" and not Path(place).exists():
        raise InputError(
            f"there is no machine profile at {place}; `iftplan bench --profile{'' if path is None else f' -o {path}'}` measures this machine and writes one, or name another with `profile='FILE'`."
        )
    return parse_profile(loads(read_text(place), place), place)


def profile_document(profile: Profile) -> Document:
    """The profile as a JSON object, sealed with its digest."""
    return with_digest(
        {
            "schema": SCHEMA,
            "machine": profile.machine,
            "instructions": profile.instructions,
            "threads": profile.threads,
            "rounds": profile.rounds,
            "entries": [_entry_object(entry) for entry in profile.entries],
        }
    )


def _entry_object(entry: ProfiledLayer) -> Document:
    pair = entry.pair
    return {
        "layer": pair.name,
        "wide": layer_notation(pair.wide),
        "sparsity": float(pair.sparsity),
        "sparsity_exact": fraction(pair.sparsity),
        "structure": pair.structure,
        "nnz": pair.nnz,
        "pass": entry.passes,
        "dense_seconds": entry.dense,
        "masked_dense_seconds": entry.operators,
        "sparse_seconds": entry.sparse,
    }


def parse_profile(document: Document, where: str = "profile") -> Profile:
    """Profile of a machine from its document.

    Raises:
        InputError: names the path inside the document.
    """
    check(document, SCHEMA, where)
    parsed = validate(_ProfileObject, document, where)
    keys = ("layer", "sparsity_exact", "structure", "pass")
    measured = (" ".join(entry[key] for key in keys) for entry in parsed["entries"])  # type: ignore[literal-required]
    for problem in duplicate_name("entries", measured):
        raise InputError(f"{where}: {problem}; each layer and pass is timed once.")
    return Profile(
        parsed["machine"],
        parsed["instructions"],
        parsed["threads"],
        parsed["rounds"],
        tuple(_entry(entry, f"{where}: entries.{i}") for i, entry in enumerate(parsed["entries"])),
        parsed["digest"],
    )


def _entry(parsed: _EntryObject, where: str) -> ProfiledLayer:
    try:
        dense, wide = parse_layer(parsed["layer"]), parse_layer(parsed["wide"])
        sparsity, structure = parse_sparsity(parsed["sparsity_exact"]), parse_mask(parsed["structure"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    same = (dense.kind, dense.kernel, dense.positions) == (wide.kind, wide.kernel, wide.positions)
    if dense.kind not in TIMED or dense.symbolic or wide.symbolic or not same:
        raise InputError(
            f"{where}: {parsed['wide']} is not {parsed['layer']} made wider; a profile has linear layers and convolutions of two dimensions."
        )
    if parsed["sparsity"] != float(sparsity):
        raise InputError(
            f"{where}.sparsity is {parsed['sparsity']}, but sparsity_exact is {parsed['sparsity_exact']}."
        )
    if min(wide.fan_in / dense.fan_in, wide.fan_out / dense.fan_out) < 1:
        raise InputError(f"{where}: {parsed['wide']} is narrower than {parsed['layer']}, which it replaces.")
    if parsed["nnz"] > wide.weights:
        raise InputError(
            f"{where}.nnz is {parsed['nnz']}, more than the {wide.weights} weights of {parsed['wide']}."
        )
    pair = LayerPair(layer_notation(dense), dense, wide, parsed["nnz"], sparsity, str(structure))
    return ProfiledLayer(
        pair,
        parsed["pass"],
        parsed["dense_seconds"],
        parsed["sparse_seconds"],
        parsed["masked_dense_seconds"],
    )


_Passed = TypedDict("_Passed", {"pass": Pass})  # no name that a class could have


@with_config(_STRICT)
class _EntryObject(_Passed):
    """One layer that was measured.

    Attributes:
        layer: the dense layer in layer notation; its positions are those of all samples.
        wide: the masked layer in its place.
        sparsity: asked for.
        structure: of the mask.
        nnz: weights that are kept.
        pass: what was timed: a forward pass, or a step, forward and backward.
        dense_seconds: of the dense layer in the fastest of its backends.
        masked_dense_seconds: of the wide layer in dense operators; null where it was too large to be timed.
        sparse_seconds: of the wide layer in sparse kernels.
    """

    layer: str
    wide: str
    sparsity: float
    sparsity_exact: str
    structure: str
    nnz: _Count
    dense_seconds: _Seconds
    masked_dense_seconds: _Seconds | None
    sparse_seconds: _Seconds


@with_config(_STRICT)
class _ProfileObject(TypedDict):
    """What layers take on a machine.

    Attributes:
        schema: kind and version.
        machine: the processor.
        instructions: what the sparse kernels were made of.
        threads: of the processor.
        rounds: in each of which every backend ran once; times are medians.
        entries: one object for each layer and pass.
        digest: SHA-256 of everything else, in canonical form.
    """

    schema: str
    machine: str
    instructions: str
    threads: _Count
    rounds: _Count
    entries: Annotated[list[_EntryObject], Field(min_length=1)]
    digest: str
