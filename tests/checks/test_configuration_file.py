"""What a configuration may say, and what is said where it cannot be."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from iftplan.base.errors import InputError
from iftplan.checks.configuration import Allowance, Bound, Configuration, DriftPolicy
from iftplan.checks.configuration_file import find_config, read_config
from iftplan.checks.findings import Quantity
from iftplan.models.spec import InputSpec

WHOLE = """
tolerance = 0.1
drift = "increase"
baseline = "costs.json"

[models.net]
source = "net.py:build"
inputs = ["4x16", "1x128:int64"]
tolerance = "5%"
drift = "report"
nonzeros = true
budget.macs = "1.8G"
budget.flops = "3k"
budget.parameters = 70_000
budget.ratio = { baseline = 1.05, "wide.json" = "1", other = "1/3" }
budget.equal = ["plans/iso.json"]
allow = [
  { operator = "my::scan", macs = "64*out+2", reason = "measured by hand" },
  { module = "probe", reason = "training only" },
]

[models.other]
source = "pkg.nets:Other"
inputs = { tokens = "1x128:int64" }
"""


def read(tmp_path: Path, text: str, name: str = "iftplan.toml") -> Configuration:
    (tmp_path / name).write_text(text)
    return read_config(tmp_path / name)


def test_a_whole_configuration_becomes_values(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    net, other = config.models
    assert config.baseline == "costs.json"
    assert config.folder == tmp_path
    assert net.inputs == (InputSpec((4, 16)), InputSpec((1, 128), "int64"))
    assert net.tolerance == Fraction(1, 20)
    assert net.drift is DriftPolicy.REPORT
    assert net.nonzeros
    assert net.bounds == (
        Bound(Quantity.MACS, Fraction(1_800_000_000)),
        Bound(Quantity.FLOPS, Fraction(3000)),
        Bound(Quantity.PARAMETERS, Fraction(70_000)),
        Bound(Quantity.RATIO, Fraction(21, 20), "baseline"),
        Bound(Quantity.RATIO, Fraction(1), "wide.json"),
        Bound(Quantity.RATIO, Fraction(1, 3), "other"),
        Bound(Quantity.RATIO, Fraction(1), "plans/iso.json", equal=True),
    )
    assert net.allowed == (
        Allowance("my::scan", "64*out+2", "measured by hand"),
        Allowance("probe", "", "training only"),
    )
    assert other.inputs == (InputSpec((1, 128), "int64", "tokens"),)
    assert other.tolerance == Fraction(1, 10)  # exactly: a TOML float is read as it is written
    assert other.drift is DriftPolicy.INCREASE


def test_drift_of_macs_alone_only_reports_parameters(tmp_path: Path) -> None:
    text = '{}[models.net]\nsource = "net.py:build"\n{}'
    alone = read(tmp_path, text.format("", 'drift.macs = "increase"\n')).models[0]
    assert (alone.drift, alone.parameter_drift) == (DriftPolicy.INCREASE, DriftPolicy.REPORT)
    both = read(tmp_path, text.format('drift = "any"\n', "")).models[0]
    assert (both.drift, both.parameter_drift) == (DriftPolicy.ANY, DriftPolicy.ANY)
    neither = read(tmp_path, text.format("", "")).models[0]
    assert (neither.drift, neither.parameter_drift) == (None, None)


def test_both_files_say_the_same(tmp_path: Path) -> None:
    own = read(tmp_path, WHOLE)
    shared = WHOLE.replace("[models.", "[tool.iftplan.models.").replace(
        "\ntolerance = 0.1", "\n[tool.iftplan]\ntolerance = 0.1"
    )
    other = read(tmp_path, f'[project]\nname = "x"\n{shared}', "pyproject.toml")
    assert other.models == own.models
    assert other.baseline == own.baseline


def test_a_plan_is_held_against_its_own_ledger(tmp_path: Path) -> None:
    config = read(
        tmp_path, '[models.wide]\nsource = "wide.json"\nmodel = "net.py:build"\nbudget.macs = "1M"\n'
    )
    assert config.models[0].builds == "net.py:build"
    assert config.models[0].bounds[0] == Bound(Quantity.RATIO, Fraction(1), "wide.json", equal=True)


WRONG = [
    ('source = "net.py:build"', 'souce = "net.py:build"', "models.net.souce: there is no such key. Did you mean 'source'?"),
    ('source = "net.py:build"', "", "models.net.source: it is missing"),
    ('source = "net.py:build"', 'source = "net.py"', "models.net.source: model 'net.py' names a file but no factory"),
    ('source = "net.py:build"', 'source = "zoo:resnt18"', "Did you mean 'zoo:resnet18'"),
    ("tolerance = 0.1", "tolerence = 0.1", "tolerence: there is no such key. Did you mean 'tolerance'?"),
    ("tolerance = 0.1", "tolerance = -1", "tolerance: tolerance -1 is negative; the smallest is 0, which means exact equality."),
    ("tolerance = 0.1", "tolerance = 20", "tolerance: 20 would pass 21 times the budget. Write 20% for per cent"),
    ("tolerance = 0.1", "tolerance = nan", "tolerance: tolerance 'nan' is not a number; write it as 1e-3"),
    ("tolerance = 0.1", "tolerance = true", "tolerance: "),
    ('drift = "increase"', 'drift = "up"', "drift: 'up' is not what it takes. Write \"any\", \"increase\" or \"report\"; how much may pass is tolerance"),
    ('drift = "increase"', "drift.mac = 'any'", "drift.mac: there is no such key. Did you mean 'macs'?"),
    ('drift = "increase"', "drift.macs = '5%'", "how much may pass is tolerance = \"5%\""),
    ('inputs = ["4x16"', 'inputs = "4x16" # ', "models.net.inputs: '4x16' is not what it takes. Write inputs = [\"1x3x224x224\"]"),
    ("budget.macs", "budget.mcas", "models.net.budget.mcas: there is no such key. Did you mean 'macs'?"),
    ('"1.8G"', '"much"', "models.net.budget.macs: budget 'much' is not a count"),
    ('"3k"', '"3"', "models.net.budget.flops: "),
    ("70_000", '"7 GFLOPs"', "models.net.budget.parameters: '7 GFLOPs' is a count of something else"),
    ("1.05", "0", "models.net.budget.ratio.baseline: 0 is too small. A ratio is above 0."),
    ('other = "1/3"', 'othr = "1/3"', "models.net.budget.ratio.othr: 'othr' is nothing that MACs can be held against. Did you mean 'other'?"),
    ('other = "1/3"', 'net = "1/3"', "models.net.budget.ratio.net: 'net' is nothing that MACs can be held against"),
    ('"plans/iso.json"', '"iso"', "models.net.budget.equal: 'iso' is nothing"),
    ('"4x16"', '"4 by 16"', "models.net.inputs.0: input '4 by 16' cannot be read"),
    ('"4x16"', "4", "models.net.inputs.0: "),
    ('"64*out+2"', '"64out"', "models.net.allow.0.macs: "),
    ('macs = "64*out+2", ', "", "models.net.allow.0: it vouches for one thing"),
    (', reason = "training only"', "", "models.net.allow.1.reason: it is missing"),
    ('"training only"', '" "', "models.net.allow.1.reason: it is empty"),
    ("nonzeros = true", 'nonzeros = "yes"', "models.net.nonzeros: "),
    ("nonzeros = true", 'model = "net.py:build"', "models.net.model: it says what a plan is built on"),
    ("[models.other]", "[models.baseline]", "models.baseline: 'baseline' cannot be a model's name"),
    ("[models.other]", "[models.other", "is not TOML: "),
]  # fmt: skip


@pytest.mark.parametrize(("good", "bad", "says"), WRONG, ids=[bad or good for good, bad, _ in WRONG])
def test_a_mistake_is_named_with_its_place(tmp_path: Path, good: str, bad: str, says: str) -> None:
    assert good in WHOLE
    text = WHOLE.replace(good, bad, 1)
    if bad == "[models.baseline]":
        text = text.replace(', other = "1/3"', "")
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert says in str(caught.value)
    assert "iftplan.toml" in str(caught.value)
    assert "Error" not in str(caught.value)


def test_the_place_has_the_prefix_of_its_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pyproject.toml: tool.iftplan.models.net.source: it is missing"):
        read(tmp_path, "[tool.iftplan.models.net]\n", "pyproject.toml")
    with pytest.raises(InputError, match=r"has no \[tool.iftplan\]"):
        read(tmp_path, "[tool.ruff]\n", "pyproject.toml")
    with pytest.raises(InputError, match=r"models: it is (empty|missing)"):
        read(tmp_path, "models = {}\n")


def test_what_is_advised_for_a_file_can_be_read_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"models: it is missing. Begin with \[models\.net\]"):
        read(tmp_path, "")
    with pytest.raises(InputError, match=r"models: it is empty.*Begin with \[models\.net\]"):
        read(tmp_path, "[models]\n")
    with pytest.raises(InputError, match=r"prefix is for a pyproject\.toml. Here write \[models\.NAME\]"):
        read(tmp_path, '[tool.iftplan.models.net]\nsource = "zoo:resnet18"\n')
    with pytest.raises(InputError, match=r"Begin with \[tool\.iftplan\.models\.net\]"):
        read(tmp_path, "[tool.iftplan]\n", "pyproject.toml")


@pytest.mark.parametrize("text", ["1e-3", '"1e-3"', "0.001", '"0.1%"', '"1/1000"'])
def test_a_tolerance_is_written_in_any_of_these_ways(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, f'tolerance = {text}\n[models.net]\nsource = "zoo:resnet18"\n')
    assert config.models[0].tolerance == Fraction(1, 1000)


def test_the_nearest_configuration_holds(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.iftplan.models.x]\nsource = "zoo:resnet18"\n')
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.ruff]\n")
    assert find_config(inner) == tmp_path / "pyproject.toml"
    (tmp_path / "iftplan.toml").write_text('[models.x]\nsource = "zoo:resnet18"\n')
    assert find_config(inner) == tmp_path / "iftplan.toml"
    (inner / "iftplan.toml").write_text('[models.y]\nsource = "zoo:resnet18"\n')
    assert find_config(inner) == inner / "iftplan.toml"


def test_models_are_chosen_by_name(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    assert [m.name for m in config.chosen(())] == ["net", "other"]
    assert [m.name for m in config.chosen(("other", "other"))] == ["other"]
    with pytest.raises(InputError, match=r"has no model 'nett'\. Did you mean 'net'\?"):
        config.chosen(("nett",))


@pytest.mark.parametrize("name", ["iftplan.toml", "pyproject.toml"])
def test_a_file_of_a_windows_editor_is_read(tmp_path: Path, name: str) -> None:
    text = "[models.a]\nsource = 'zoo:digits-cnn'\n"
    text = text if name == "iftplan.toml" else text.replace("[models", "[tool.iftplan.models")
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert [model.name for model in read_config(tmp_path / name).models] == ["a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tool = 3", r"has no \[tool.iftplan\]"),
        ("[tool]\niftplan = 3", r"has no \[tool.iftplan\]"),
        ("x = " + "[" * 5000, "nested too deep"),
        ("x = " + "[" * 60 + "]" * 60, "brackets are nested deeper than 50"),
        ("x = " + "1" * 5000, "a number has thousands of digits"),
        ('x = "a\\u0000b"', "x: text contains a NUL"),
    ],
)
def test_a_projects_file_with_what_nobody_means_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_config(tmp_path / "pyproject.toml")
