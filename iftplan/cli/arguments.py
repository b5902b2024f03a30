"""What an argument names: a plan, a spec, an audit report, or a model that has to be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from iftplan.base.documents import Document, loads, read_text, schema_of
from iftplan.base.errors import InputError
from iftplan.cli.kept_answers import kept_folder
from iftplan.cli.output import waiting, working
from iftplan.cli.process import lasting_imports
from iftplan.models.allowances import parse_vouched
from iftplan.models.spec import Framework, Heads, InputSpec, ModelSpec
from iftplan.plans.plan import Plan

if TYPE_CHECKING:
    from iftplan.nn.counting.operators.registry import Operator


def document_in(text: str) -> Document | None:
    """The document that an argument names; None for a model source."""
    is_file = text == "-" or (text.endswith(".json") and not text.startswith("hf:"))
    return loads(read_text(text), text) if is_file else None


def plan_in(document: Document, where: str, inputs: Sequence[InputSpec] = ()) -> Plan:
    """Plan in a document.

    Args:
        document: as it was read.
        where: the file, for messages.
        inputs: that were asked for; none for the plan's own.

    Raises:
        InputError: another kind of document, or a plan for other inputs.
    """
    from iftplan.plans.document.plan import parse_plan

    if (kind := schema_of(document, where)) != "plan":
        raise InputError(
            f"{where} is a {kind} document, and this needs a plan. Make one with iftplan plan MODEL -o plan.json."
        )
    return parse_plan(document, where, inputs)


def spec_of(
    model: str,
    inputs: Sequence[InputSpec],
    *,
    widths: bool = False,
    heads: Heads = "number",
    allow: Sequence[str] | None = None,
    no_cache: bool = False,
    watched: bool = True,
    framework: Framework | None = None,
) -> ModelSpec:
    """Spec of a model, read from the model or from the document that stands for it.

    Args:
        model: a MODEL argument.
        inputs: of the forward pass; none for the model's own.
        widths: whether to find which channels move together.
        heads: "number" or "size", whichever attention keeps when it widens.
        allow: costs of unknown operators, NAME=MACS.
        no_cache: whether to read it anew and keep nothing.
        watched: whether this process may be watched from here on, which makes opening files slower.
        framework: library that it is written in; None for the one that its factory imports.

    Raises:
        InputError: costs are given for a spec, which was read already.
    """
    document = document_in(model)
    if document is not None:
        if allow:
            raise InputError(
                f"{model} is a spec, which was read already, so --allow does not apply. Give it where the spec is made: iftplan spec MODEL --allow …"
            )
        return spec_in(document, model, inputs)
    if model.startswith("zoo:") and not allow and framework != "jax":
        from iftplan.models.zoo.specs import zoo_spec

        if (kept := zoo_spec(model, inputs, widths=widths, heads=heads)) is not None:
            return kept
    from iftplan.cache.answers import Question, keep_answer, kept_answer, watch_reads
    from iftplan.models.document import parse_spec, spec_document
    from iftplan.models.frameworks import framework_of
    from iftplan.models.sources import parse_source

    library = framework or framework_of(model)
    folder, code = kept_folder(no_cache), parse_source(model).runs_user_code
    request = {"task": "spec", "source": model, "inputs": [*map(str, inputs)], "allow": sorted(allow or ())}
    request |= {} if library == "torch" else {"framework": library}

    def asked(widths: bool) -> Question:
        return Question({**request, "widths": widths, "heads": heads if widths else "number"}, code)

    for full in dict.fromkeys((widths, True)):
        if (found := kept_answer(asked(full), folder)) is not None:
            whole = parse_spec(found, model)
            return whole if widths else replace(whole, couplings=None, refusal="")
    read = _jax_reader if library == "jax" else _torch_reader
    reader = read(model, inputs, widths, heads, allow)
    place = folder if watched else None
    reads = watch_reads(place)
    with working(f"reading {model}" + (" and its widths" if widths else "")):
        spec = reader()
    keep_answer(asked(widths), place, spec_document(spec), reads)
    return spec


def _torch_reader(
    model: str, inputs: Sequence[InputSpec], widths: bool, heads: Heads, allow: Sequence[str] | None
) -> Callable[[], ModelSpec]:
    """Reading of a model in PyTorch, once everything is imported that it needs."""
    require_torch(f"reading {model}")
    with lasting_imports():
        from iftplan.nn.reading.read import load, read_model

        load(widths=widths)
    operators = operators_of(allow)
    return lambda: read_model(model, tuple(inputs) or None, widths=widths, heads=heads, operators=operators)


def _jax_reader(
    model: str, inputs: Sequence[InputSpec], widths: bool, heads: Heads, allow: Sequence[str] | None
) -> Callable[[], ModelSpec]:
    """The same for JAX."""
    require_jax(f"reading {model}")
    with lasting_imports():
        from iftplan.jaxnn.reading.read import read_model
    return lambda: read_model(model, *inputs, allow=allow or (), widths=widths, heads=heads)


def operators_of(allow: Sequence[str] | None) -> Mapping[str, Operator]:
    """Cost formulas of the `--allow` options, by operator; empty without any.

    Raises:
        InputError: one cannot be read.
    """
    costs = parse_vouched(allow or ())
    if not costs:
        return {}
    from iftplan.nn.counting.operators.allowed import vouched_operators

    return vouched_operators(costs)


def spec_in(document: Document, where: str, inputs: Sequence[InputSpec]) -> ModelSpec:
    """Spec in a document.

    Args:
        document: as it was read.
        where: the file, for messages.
        inputs: that were asked for; none for the spec's own.

    Raises:
        InputError: another kind of document, or a spec that was read with other inputs.
    """
    from iftplan.models.document import parse_spec

    if (kind := schema_of(document, where)) != "spec":
        raise InputError(
            f"{where} is a {kind} document, and this needs a model: zoo:NAME, hf:CONFIG.json, file.py:factory or a spec."
        )
    spec = parse_spec(document, where)
    if inputs and tuple(inputs) != spec.inputs:
        raise InputError(
            f"{where} was read with input {', '.join(map(str, spec.inputs))}. A spec holds for one input; make another with iftplan spec {spec.source} --input …"
        )
    return spec


def model_option(source: str) -> list[str]:
    """The `--model` that a plan of this source needs beside it: Python of the user's runs only where it is named.

    Args:
        source: what the plan says that its model is built from.
    """
    from iftplan.models.sources import parse_source

    return ["--model", source] if source and parse_source(source).runs_user_code else []


def require_torch(what: str) -> None:
    """Import torch, which takes seconds and on a terminal says so; where it is missing, say which extra to install.

    Raises:
        InputError: torch cannot be imported.
    """
    try:
        with waiting("importing PyTorch"), lasting_imports():
            import torch  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{what} needs PyTorch, which cannot be imported ({error}). Install it with: pip install 'iftplan[torch]'."
        ) from error


def require_jax(what: str) -> None:
    """Import JAX; where it is missing, say which extra to install.

    Raises:
        InputError: JAX cannot be imported.
    """
    try:
        with waiting("importing JAX"), lasting_imports():
            import jax  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{what} needs JAX, which cannot be imported ({error}). Install it with: pip install 'iftplan[jax]'."
        ) from error


def source_of(plan: Plan, model: str, *, trust: bool) -> str:
    """Source of a plan's dense model, which must build the one that the plan was made for.

    Args:
        plan: names its model.
        model: another source of it; empty for the plan's.
        trust: whether Python that the plan names is run.
    """
    require_torch(f"building {model or plan.model}")
    from iftplan.nn.application.dense_model import dense_model

    dense_model(plan, model or None, trust=trust)
    return model or plan.model


def short_name(text: str) -> str:
    """A short name for a subject."""
    return "stdin" if text == "-" else Path(text).name if text.endswith(".json") else text


def refuse_unsavable(file: str) -> None:
    """Refuse a name that no sparse network can be written to, before anything is computed.

    Raises:
        InputError: it does not end in .safetensors, or there is no such folder.
    """
    if Path(file).suffix != ".safetensors":
        raise InputError(
            f"--save {file!r} is no .safetensors file. Name one, such as {Path(file).stem or 'net'}.safetensors."
        )
    if not Path(file).parent.is_dir():
        raise InputError(f"--save {file!r}: there is no folder {Path(file).parent}. Make it first.")
