"""Documents: what is written reads back, and whatever else is read is refused with the place of its fault."""

import copy
import io
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iftplan import api
from iftplan.base.documents import check, digest, dumps, loads, read_text, schema_of, with_digest, write_text
from iftplan.base.errors import InputError
from iftplan.base.units import Convention
from iftplan.families.builtin import FAMILIES
from iftplan.families.document import solve_document
from iftplan.families.solver import solve
from iftplan.models.document import parse_spec, spec_document
from iftplan.models.notation import parse_layer
from iftplan.models.spec import Kind
from iftplan.plans.audit.audit import AuditReport
from iftplan.plans.document.plan import parse_plan, plan_document
from iftplan.plans.plan import Plan, Role
from tests.support.hand_specs import chain, mlp

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)
objects = st.dictionaries(names, json_values, max_size=5)


def made(transform: str = "wide", sparsity: str = "3/4", **policy: Any) -> Plan:
    return api.plan(chain(), None if transform == "none" else transform, sparsity, **policy)


# --- canonical form and digest -------------------------------------------------------------------------


@given(objects)
def test_a_sealed_document_reads_back_with_the_same_digest(body: dict[str, Any]) -> None:
    document = with_digest(body)
    again = loads(dumps(document), "test")
    assert again == document
    assert digest(again) == document["digest"] == digest(body)
    assert dumps(again) == dumps(document)


@given(objects, names.filter(lambda key: key not in ("", "digest")), json_values)
def test_the_digest_changes_with_any_key(body: dict[str, Any], key: str, value: Any) -> None:
    changed = {**body, key: value}
    same = key in body and json.dumps(body[key], sort_keys=True) == json.dumps(value, sort_keys=True)
    assert (digest(changed) == digest(body)) == same


def test_the_digest_is_the_hash_of_the_canonical_text() -> None:
    from hashlib import sha256

    assert digest({"b": [1, "×"], "a": None}) == sha256('{"a":null,"b":[1,"×"]}'.encode()).hexdigest()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_written(number: float) -> None:
    for write in (digest, dumps):
        with pytest.raises(ValueError, match="JSON compliant"):
            write({"x": number})


# --- reading -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1, column 1"),
        ('{"a": 1', "line 1, column 8"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6"),
        ('{"a": NaN}', "NaN is not allowed as a number"),
        ('{"a": -Infinity}', "-Infinity is not allowed as a number"),
        ("[1, 2]", "contains a JSON list, but a document must be an object"),
        ('"text"', "contains a JSON str"),
        ("{'a': 1}", "line 1, column 2"),
        ("[" * 200_000, "is not JSON"),
        ("[" * 200_000, "its brackets are nested too deep"),
        ('{"a": ' * 60 + "1" + "}" * 60, "brackets are nested deeper than 50"),
        ("1" * 5000, "a number has thousands of digits"),
        ('{"a": 1' + "0" * 60 + "}", "given.json: a: a number has 61 digits"),
        ('{"a": [1, 1e999]}', "given.json: a.1 = inf; it must be a finite number"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is given twice in one object"),
        ('{"b": {"a\\u0000": 1}}', "text contains a NUL"),
        ('{"b": "\\udc80"}', r"b: text contains half of a surrogate pair ('\udc80')"),
    ],
)
def test_text_that_is_no_document_says_where(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        loads(text, "given.json")
    assert "given.json" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "document", [{}, {"schema": 1}, {"schema": "other.plan/1"}, {"schema": "iftplan.plan"}]
)
def test_a_document_of_nobody_we_know_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"x.json has no iftplan schema \(found .*iftplan.plan/1"):
        schema_of(document, "x.json")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (
            with_digest({"schema": "iftplan.plan/2"}),
            "an unknown version: its schema is 'iftplan.plan/2', and 'iftplan.plan/1'",
        ),
        (with_digest({"schema": "iftplan.spec/1"}), "another kind of document"),
        ({"schema": "iftplan.plan/1"}, "its digest is None"),
        ({"schema": "iftplan.plan/1", "digest": 5}, "its digest is 5"),
        (
            {**with_digest({"schema": "iftplan.plan/1", "x": 1}), "x": 2},
            "it was changed after it was written",
        ),
    ],
)
def test_schema_version_and_digest_are_checked_before_anything_is_read(
    document: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        check(document, "iftplan.plan/1", "x.json")
    assert "x.json" in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", ".", "latin.json"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_text(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert "or - for stdin" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("be") else ""
    (tmp_path / "plan.json").write_text(mark + '{"a": 1}', encoding=encoding)
    with pytest.raises(InputError, match=rf"is {encoding[:6].upper()} text.*save it as UTF-8"):
        read_text(str(tmp_path / "plan.json"))


def test_a_byte_order_mark_and_windows_line_ends_are_read_over(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b'\xef\xbb\xbf{\r\n"a":\r1}\r\n')
    assert read_text(str(tmp_path / "plan.json")) == '{\n"a":\n1}\n'
    assert loads(read_text(str(tmp_path / "plan.json")), "") == {"a": 1}


def test_a_name_with_a_nul_is_no_file() -> None:
    with pytest.raises(InputError, match="embedded null byte"):
        read_text("a\0b")


def test_a_dash_reads_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("{}"))
    assert read_text("-") == "{}"


# --- writing -------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    write_text("one\n", str(target))
    write_text("two ×\n", str(target))
    assert target.read_text(encoding="utf-8") == "two ×\n"
    assert list(tmp_path.iterdir()) == [target]
    before = os.umask(0o022)
    os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~before


@pytest.mark.parametrize("broken", ["mkstemp", "fdopen", "replace"])
def test_a_failure_while_writing_keeps_the_old_content_and_leaves_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old")

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    def full(descriptor: int, *args: object, **kwargs: object) -> Full:
        os.close(descriptor)
        return Full()

    def refuse(self: Path, target: str) -> None:
        raise OSError(1, "Operation not permitted")

    def forbidden(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    if broken == "mkstemp":
        monkeypatch.setattr(tempfile, "mkstemp", forbidden)
    elif broken == "fdopen":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match="nothing was changed"):
        write_text("new", str(target))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("path", ["no/such/directory/plan.json", "a-file/plan.json", "."])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "a-file").write_text("x")
    with pytest.raises(InputError, match="cannot be written") as caught:
        write_text("new", str(tmp_path / path))
    assert str(tmp_path / path) in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "a-file"]


def test_a_device_is_written_to_and_not_replaced() -> None:
    write_text("gone", os.devnull)
    assert not Path(os.devnull).is_file()


# --- plans ---------------------------------------------------------------------------------------------

ASKED = [
    ("wide", {}),
    ("wide", {"scope": "model", "distribution": "erk", "round_to": 8}),
    ("wide", {"close": "width", "keep_dense": ("first", "body")}),
    ("parallel", {"scope": "matrices", "keep_dense": ()}),
    ("factorized", {}),
    ("doped", {"distribution": "er"}),
    ("lowrank", {}),
    ("none", {"distribution": "erk"}),
]


@pytest.mark.parametrize(("transform", "policy"), ASKED)
def test_every_plan_reads_back_as_it_was_written_byte_for_byte(
    tmp_path: Path, transform: str, policy: dict[str, Any]
) -> None:
    plan = made(transform, **policy)
    path = str(tmp_path / "plan.json")
    api.save(plan, path)
    again = api.load(path)
    assert again == plan
    assert isinstance(again, Plan)
    assert dumps(plan_document(again)) == Path(path).read_text(encoding="utf-8")


def test_a_plan_says_the_same_twice() -> None:
    assert dumps(plan_document(made())) == dumps(plan_document(made()))


def test_specs_read_back(tmp_path: Path) -> None:
    for spec in (chain(), mlp()):
        assert parse_spec(loads(dumps(spec_document(spec)), "spec")) == spec
        path = str(tmp_path / "spec.json")
        api.save(spec, path)
        assert api.load(path) == spec


def resealed(document: Any, *path: str | int, value: Any) -> dict[str, Any]:
    """The document with one value changed and a digest that agrees, as a forger would write it."""
    changed = copy.deepcopy(document)
    *parents, last = path
    place = changed
    for key in parents:
        place = place[key]
    place[last] = (
        value(place.get(last) if isinstance(place, dict) else place[last]) if callable(value) else value
    )
    return with_digest(changed)


def one_more(value: int) -> int:
    return value + 1


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("unheard",), 1, "unheard"),
        (("layers", 1, "unheard"), 1, "layers.1.unheard"),
        (("sparsity",), "0.75", "sparsity"),
        (("layers", 1, "nnz"), 3.5, "layers.1.nnz"),
        (("layers", 1, "nnz"), True, "layers.1.nnz"),
        (("layers", 1, "role"), "magic", "layers.1.role"),
        (("layers",), {}, "layers"),
        (("convention",), "flop", "convention"),
        (("scope",), "all", "scope"),
        (("sparsity_exact",), "three quarters", "sparsity_exact"),
        (("sparsity_exact",), "1/0", "sparsity_exact"),
        (("sparsity_exact",), "1e9999999", "sparsity_exact"),  # as a number it would take minutes
        (("closing_sparsity_exact", "model"), "x/y", "closing_sparsity_exact.model"),
        (("dense", "everything"), 1, "dense.everything"),
        (("cardinality", "log2_masks"), None, "cardinality.log2_masks"),
        (("input",), ["1xx3"], "1xx3"),
    ],
)
def test_a_plan_of_another_form_is_refused_with_the_path_inside_it(
    path: tuple[Any, ...], value: Any, says: str
) -> None:
    document = resealed(plan_document(made()), *path, value=value)
    with pytest.raises(InputError) as caught:
        parse_plan(document, "forged.json")
    assert says in str(caught.value)


@pytest.mark.parametrize("key", sorted(plan_document(made())))
def test_a_plan_without_one_of_its_keys_is_refused(key: str) -> None:
    document = plan_document(made())
    del document[key]
    with pytest.raises(InputError) as caught:
        parse_plan(document if key == "digest" else with_digest(document), "cut.json")
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("layers", 1, "nnz"), one_more),
        (("layers", 1, "macs"), one_more),
        (("layers", 1, "dense_macs"), one_more),
        (("layers", 1, "positions"), one_more),
        (("layers", 1, "dense_weights"), one_more),
        (("layers", 1, "capacity"), 1),
        (("layers", 1, "capacity"), one_more),
        (("layers", 1, "nnz"), -5),
        (("layers", 1, "density"), 0.1),
        (("layers", 1, "density_exact"), "1/10"),
        (("layers", 1, "log2_masks"), 1.0),
        (("layers", 1, "role"), "activation"),
        (("dense", "layers"), one_more),
        (("planned", "model"), one_more),
        (("ratio", "layers"), 0.5),
        (("ratio_exact", "matrices"), "1/1"),
        (("residual_macs",), one_more),
        (("cardinality", "maskable_weights"), one_more),
        (("cardinality", "log2_masks"), 0.0),
        (("sparsity",), 0.5),
        (("sparsity_exact",), "1/2"),
        (("closing_sparsity", "layers"), 0.5),
    ],
)
def test_a_plan_whose_books_do_not_add_up_is_refused_even_when_resealed(
    path: tuple[Any, ...], value: Callable[..., Any] | float | str
) -> None:
    document = resealed(plan_document(made()), *path, value=value)
    check(document, "iftplan.plan/1", "forged.json")  # the seal itself is in order
    with pytest.raises(InputError, match=r"forged\.json"):
        parse_plan(document, "forged.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nnz": 10**6, "macs": 64 * 10**6}, r"layers\.1\.nnz is 1000000, more than the capacity"),
        ({"nnz": -5, "macs": 64 * -5}, r"layers\.1\.\w+ has the count -\d+; a count cannot be negative"),
        ({"dense_macs": -1}, r"layers\.1\.dense_macs has the count -1"),
        (
            {"role": Role.ACTIVATION, "macs": 7},
            r"layers\.1 has weights, but a product of activations has none",
        ),
    ],
)
def test_rows_and_totals_forged_together_are_refused(changes: dict[str, Any], says: str) -> None:
    """Every total is put right again, so that only the row itself can give it away."""
    plan = made()
    rows = (plan.layers[0], replace(plan.layers[1], **changes), *plan.layers[2:])
    with pytest.raises(InputError, match=says):
        parse_plan(plan_document(replace(plan, layers=rows)), "forged.json")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_single_change_without_a_new_seal_is_noticed(data: st.DataObject) -> None:
    text = dumps(plan_document(made()))
    at = data.draw(st.integers(0, len(text) - 2))
    changed = text[:at] + data.draw(st.characters(codec="ascii")) + text[at + 1 :]
    try:
        document = loads(changed, "plan.json")
        parse_plan(document, "plan.json")
    except InputError:
        return
    assert json.loads(changed) == json.loads(text)  # only white space, or nothing, was changed


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_truncated_plan_is_refused(data: st.DataObject) -> None:
    text = dumps(plan_document(made()))
    with pytest.raises(InputError, match="is not JSON"):
        loads(text[: data.draw(st.integers(0, len(text) - 3))], "plan.json")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("layers", 0, "layer", "kind"), "conv9d", "layers.0.layer.kind"),
        (("layers", 0, "layer", "in_channels"), "3", "layers.0.layer.in_channels"),
        (("unheard",), 1, "unheard"),
        (("layers", 0, "unheard"), 1, "layers.0.unheard"),
        (("products",), None, "products"),
        (("couplings", "widths", "c", "size"), 1.5, "couplings.widths.c.size"),
        (("couplings", "widths", "c", "size"), 0, "couplings.widths.c"),
        (("couplings", "widths", "c", "multiple_of"), 0, "couplings.widths.c"),
        (("couplings", "product_macs"), {}, "couplings.product_macs has no entry 'mix:matmul'"),
        (("couplings", "weight_macs"), {}, "couplings.weight_macs has no entry 'stem.weight'"),
        (
            ("couplings", "shapes", "body.weight", 0, "terms", 0, "powers", 0, 0),
            "z",
            "couplings.shapes.body.weight: z must be",
        ),
        (
            ("couplings", "weight_macs", "dw.weight", "terms", 0, "coefficient"),
            "-1",
            "couplings.weight_macs.dw.weight",
        ),
        (
            ("couplings", "product_macs", "mix:matmul", "terms", 0, "coefficient"),
            "1/7",
            "couplings.product_macs.mix",
        ),
        (
            ("couplings", "attributes", "dw.groups", "terms", 0, "coefficient"),
            "1/3",
            "couplings.attributes.dw.groups",
        ),
        (("layers", 0, "layer", "in_channels"), None, "layers.0.layer: its channels are missing"),
        (("layers", 1, "layer", "groups"), 0, "layers.1.layer"),
        (("layers", 1, "layer", "groups"), 7, "layers.1.layer"),
        (("layers", 1, "layer", "positions"), -1, "layers.1.layer"),
        (("layers", 1, "layer", "kernel"), [0, 3], "layers.1.layer"),
        (("products", 0, "macs"), -1, "products.0.macs is -1"),
        (("products", 0, "name"), "other", "couplings.product_macs has no entry 'other'"),
        (("convention",), "flop", "convention"),
    ],
)
def test_a_spec_of_another_form_is_refused_with_the_path_inside_it(
    path: tuple[Any, ...], value: Any, says: str
) -> None:
    document = resealed(spec_document(chain()), *path, value=value)
    with pytest.raises(InputError) as caught:
        parse_spec(document, "forged.json")
    assert says in str(caught.value)


def test_a_weight_that_contracts_nothing_needs_no_macs() -> None:
    spec = mlp()
    looked_up = replace(spec.layers[0], layer=replace(spec.layers[0].layer, kind=Kind.EMBEDDING, positions=0))
    macs = {name: macs for name, macs in spec.couplings.weight_macs.items() if name != looked_up.weight}
    spec = replace(
        spec, layers=(looked_up, *spec.layers[1:]), couplings=replace(spec.couplings, weight_macs=macs)
    )
    assert parse_spec(spec_document(spec)) == spec


def test_a_spec_that_was_changed_after_it_was_written_is_refused() -> None:
    with pytest.raises(InputError, match="it was changed after it was written"):
        parse_spec({**spec_document(chain()), "source": "another.py:model"}, "forged.json")


# --- solutions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", Convention)
def test_the_solve_document_has_every_key_that_scripts_read(convention: Convention) -> None:
    layer = parse_layer("conv3x3:64-128@16x16")
    found = [solve(layer, family, Fraction(3, 4), throw=False) for family in FAMILIES.values()]
    document = loads(dumps(solve_document({"conv": found}, convention)), "solve")
    assert document["schema"] == "iftplan.solve/1"
    assert document["convention"] == convention.value
    assert document["digest"] == digest(document)
    (entry,) = document["layers"]
    assert entry["layer"] == "conv"
    for solution, s in zip(entry["solutions"], found, strict=True):
        assert {
            "transform", "sparsity", "closed_form", "structure", "nnz", "capacity", "density", "macs",
            "dense_macs", "residual_macs", "outcome", "cardinality",
        } <= solution.keys()  # fmt: skip
        assert set(solution["cardinality"]) == {"maskable_weights", "log2_masks"}
        assert solution["dense_macs"] == 64 * 128 * 9 * 256 * convention.per_mac
        assert solution["macs"] == s.macs * convention.per_mac
        assert solution["residual_macs"] == solution["dense_macs"] - solution["macs"]
        assert Fraction(solution["sparsity_exact"]) == Fraction(3, 4)


# --- audits, baselines, profiles, records ----------------------------------------------------------------------


def audited() -> "AuditReport":
    from iftplan.plans.audit.audit import AuditedLayer, AuditReport
    from iftplan.plans.plan import Scope

    rows = (AuditedLayer("a", 31, 31), AuditedLayer("b", 12, 12))
    return AuditReport("net", "plan", Scope.MODEL, Fraction(1, 1000), 86, 43, 43, {"meta": 43}, rows)


@pytest.mark.parametrize("convention", list(Convention))
def test_an_audit_reads_back_in_either_convention(convention: Convention) -> None:
    from iftplan.plans.audit.document import audit_document, parse_measured

    assert parse_measured(audit_document(audited(), convention)) == ("net", {"a": 31, "b": 12})


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("measured_macs",), -(10**9), "measured_macs is -1000000000; a count cannot be negative"),
        (("layers", 0, "measured_macs"), -30, "layers.0.measured_macs is -30"),
        (("layers", 0, "measured_macs"), 32, "measured_macs is 43, but the layers add up to 44"),
        (("layers", 1, "name"), "a", "layers.1: the name 'a' appears twice"),
        (("counters", "meta"), -1, "counters.meta is -1"),
        (("layers", 0, "agrees"), False, "layers does not follow"),
        (("ratio",), 0.25, "ratio does not follow"),
        (("ratio_exact",), "1/4", "ratio_exact does not follow"),
        (("deviation_exact",), "1/4", "deviation_exact does not follow"),
        (("passed",), False, "passed does not follow"),
        (("verdict",), "failed", "verdict does not follow"),
        (("problems",), ["it costs too much"], "verdict does not follow"),
        (("tolerance",), 0.5, "tolerance does not follow"),
        (("tolerance_exact",), "-1/2", "is negative"),
        (("convention",), "flop", "does not follow|a MAC is two FLOPs"),
    ],
)
def test_an_audit_that_contradicts_itself_is_refused(path: tuple[Any, ...], value: Any, says: str) -> None:
    from iftplan.plans.audit.document import audit_document, parse_measured

    document = resealed(audit_document(audited()), *path, value=value)
    with pytest.raises(InputError, match=says):
        parse_measured(document, "forged.json")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("models", "a", "macs"), 9, "models.a.macs is 9, and its layers make 10"),
        (("models", "a", "parameters"), 9, "models.a.parameters is 9"),
        (("models", "a", "layers", 0, "macs"), -10, "models.a.layers.0.macs is -10"),
        (("convention",), "flop", "convention"),
    ],
)
def test_a_baseline_that_contradicts_itself_is_refused(
    path: tuple[Any, ...], value: int | str, says: str
) -> None:
    from iftplan.checks.baseline import Baseline, baseline_document, parse_baseline
    from iftplan.models.cost import ModelCost

    document = baseline_document(Baseline("b", {"a": ModelCost({"fc": 10}, {"fc": 10})}, {"a": ("1x10",)}))
    assert parse_baseline(document, "b").models["a"].total_macs == 10
    with pytest.raises(InputError, match=says):
        parse_baseline(resealed(document, *path, value=value), "forged.json")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("sparsity_exact",), "-3/1", "sparsity_exact is -3; a sparsity must be at least 0"),
        (("mask",), "2:4", "2:4 masks have sparsity 1/2|2:4 masks have sparsity 0.5"),
        (("mask",), "3", "mask: "),
        (("round_to",), 0, "round_to is 0"),
        (("multiplier",), -1.0, "multiplier is -1.0"),
        (("keep_dense",), ["nobody"], "keep_dense: 'nobody' is not a layer"),
        (("scope",), None, "a plan of a family has a scope"),
        (("transform",), "none", "a plan of a family has a scope"),
        (("transform",), "parallel", "parallel keeps the width"),
        (("transform",), "lowrank", "a lowrank layer needs one"),
        (("layers", 1, "name"), "stem", "appears twice"),
        (("layers", 1, "kind"), "linear", "kind is 'linear'"),
        (("layers", 1, "before"), "conv3x3:8-8", "layers.1"),
        (("layers", 1, "after"), "conv3x3:800-8", "layers.1"),
        (("layers", 1, "before"), "conv3x3:", "layers.1: layer 'conv3x3:': channels"),
        (("layers", 1, "after"), "2 × conv3x3:32-32@64", "layers.1.after is '2 × "),
        (("layers", 1, "maskable"), False, "maskable is false"),
        (("layers", 1, "structure", "in_channels"), 3, "structure.in_channels is 3"),
        (("layers", 0, "maskable"), True, "has no mask"),
    ],
)
def test_a_plan_whose_settings_contradict_its_rows_is_refused(
    path: tuple[Any, ...], value: Any, says: str
) -> None:
    document = plan_document(made())
    assert document["layers"][0]["name"] == "stem"
    changed = resealed(document, *path, value=value)
    if path == ("sparsity_exact",):
        changed = resealed(changed, "sparsity", value=-3.0)
    with pytest.raises(InputError, match=says):
        parse_plan(changed, "forged.json")


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("layers", 1, "layer", "name"), "stem", "appears twice"),
        (("layers", 1, "layer", "in_channels"), 10**20, "from 1 to 10"),
        (("layers", 1, "layer", "positions"), 7, "MACs at the dense model's widths"),
        (("layers", 1, "layer", "heads"), 2, "cannot have 2 heads"),
        (("refusal",), "because", "it has couplings, and also a refusal"),
        (("products", 0, "macs"), 1, "but the product has 1"),
    ],
)
def test_a_spec_whose_parts_contradict_each_other_is_refused(
    path: tuple[Any, ...], value: str | int, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        parse_spec(resealed(spec_document(chain()), *path, value=value), "forged.json")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("coefficient", "1e999999999", "is neither a whole number nor a fraction"),
        ("powers", [["w1", 10**9]], "a power must be from 1 to 32"),
        ("powers", [["w1", -1]], "a power must be from 1 to 32"),
    ],
)
def test_a_polynomial_that_would_never_end_is_refused(
    key: str, value: str | list[list[str | int]], says: str
) -> None:
    document = spec_document(mlp())
    name = next(name for name, macs in document["couplings"]["weight_macs"].items() if macs["terms"])
    path = ("couplings", "weight_macs", name, "terms", 0, key)
    with pytest.raises(InputError, match=says):
        parse_spec(resealed(document, *path, value=value), "forged.json")
