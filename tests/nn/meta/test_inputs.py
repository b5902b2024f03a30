"""Inputs as people have them at hand: values, tensors, batches; and models that learn their sizes from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import iftplan as ift
from iftplan.base.errors import InputError, MeasureError
from iftplan.models.notation import parse_input
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.training_step import measure_step
from iftplan.nn.meta.inputs import given_inputs, make_inputs
from iftplan.nn.reading.read import read_model
from tests.support.cli_runs import iftplan

ENGINES = ("meta", "flop_counter", "fvcore")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("wide=True", True),
        ("wide=false", False),
        ("cache=None", None),
        ("steps=int:5", 5),
        ("steps=int:-5", -5),
        ("rate=0.5", 0.5),
        ("rate=1e-3", 0.001),
        ("rate=float:2", 2.0),
        ("mode=str:train", "train"),
        ("mode=str:a=b c", "a=b c"),
        ("True", True),
    ],
)
def test_values_are_read_and_written(text: str, value: object) -> None:
    spec = parse_input(text)
    assert spec.is_value and spec.value == value and type(spec.value) is type(value)
    assert parse_input(str(spec)) == spec


@pytest.mark.parametrize(
    "text", ["batch.image=1x3x8x8", "images.0=3x8x8", "0.mask=1x8:bool", "t=scalar:int64", "scalar"]
)
def test_parts_and_scalars_are_read_and_written(text: str) -> None:
    assert str(parse_input(text)) == text
    assert not parse_input(text).is_value


@pytest.mark.parametrize(
    "text", ["wide=yes", "wide=", "x=int:", "x=int:1.5", "=True", "a..b=1x2", "1x2.5", "0=1x2", "mode=train"]
)
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        parse_input(text)


def test_parts_become_dictionaries_and_lists() -> None:
    specs = [
        parse_input(t)
        for t in ("1x2", "1.a=3", "1.b.0=4", "1.b.1=5", "flag=True", "images.0=6", "images.1=7")
    ]
    args, kwargs = make_inputs(specs)
    assert [tuple(args[0].shape), tuple(args[1]["a"].shape)] == [(1, 2), (3,)]
    assert [tuple(t.shape) for t in args[1]["b"]] == [(4,), (5,)]
    assert kwargs["flag"] is True and [tuple(t.shape) for t in kwargs["images"]] == [(6,), (7,)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("a=1x2", "a.b=1x2"), "as a whole and in parts"),
        (("1.a=1x2",), "positions start at 0"),
        (("a=True", "a=False"), "2 times"),
    ],
)
def test_inputs_that_contradict_each_other_are_refused(texts: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_inputs([parse_input(t) for t in texts])


class Flagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.broad = nn.Linear(8, 4), nn.Linear(8, 32)

    def forward(self, x: Tensor, wide: bool = False, *, times: int = 1) -> Tensor:
        for _ in range(times):
            y = self.broad(x) if wide else self.narrow(x)
        return y


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flag_decides_what_runs(engine: str) -> None:
    def macs(*texts: str) -> int:
        return measure(Flagged(), [parse_input(t) for t in texts], engine=engine).macs

    assert macs("2x8") == 2 * 8 * 4
    assert macs("2x8", "wide=True") == macs("2x8", "True") == 2 * 8 * 32
    assert macs("2x8", "times=int:3") == 3 * 2 * 8 * 4


class Batched(nn.Module):
    """Takes one nested batch."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = nn.Linear(8, 4), nn.Linear(6, 4)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        texts = sum(self.text(t) for t in batch["texts"])
        return self.image(batch["image"]) + texts if batch["use"] else texts


BATCH = {"image": torch.zeros(2, 8), "texts": [torch.zeros(2, 6), torch.zeros(2, 6)], "use": True}
BATCH_MACS = 2 * 8 * 4 + 2 * 2 * 6 * 4


@pytest.mark.parametrize("engine", ENGINES)
def test_a_nested_batch_is_an_input(engine: str) -> None:
    assert measure(Batched(), [BATCH], engine=engine).macs == BATCH_MACS
    assert (
        measure(Batched(), BATCH, engine=engine).macs == BATCH_MACS
    )  # its keys are no parameters of forward


def test_every_entry_takes_example_inputs() -> None:
    x = torch.zeros(2, 8)
    assert ift.read_model(Flagged(), x).macs == 64
    assert ift.read_model(Flagged(), {"x": x, "wide": True}).macs == 512
    assert ift.read_model(Flagged(), x, True).macs == 512
    assert ift.read_model(Flagged(), (x, True)).macs == 512
    assert ift.read_model(Flagged(), "2x8", "wide=True").macs == 512
    assert ift.read_model(Batched(), BATCH).macs == BATCH_MACS
    assert (
        read_model(Flagged(), x).macs
        == measure(Flagged(), x).macs
        == measure_step(Flagged(), x).forward
        == 64
    )
    read = ift.read_model(Batched(), BATCH)
    assert [str(i) for i in read.inputs] == ["0.image=2x8", "0.texts.0=2x6", "0.texts.1=2x6", "0.use=True"]


def test_numbers_of_numpy_count_as_tensors_and_the_rest_is_refused() -> None:
    numpy = pytest.importorskip("numpy")
    assert given_inputs([numpy.zeros((2, 8), "float32")]) == (InputSpec((2, 8)),)
    with pytest.raises(InputError, match="of type object"):
        given_inputs([object()])


def test_the_command_line_takes_values_and_plans_keep_them(tmp_path: Path) -> None:
    source = "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n"
    body = """
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x, wide=False):
        h = self.a(x).relu()
        return self.c(self.b(h).relu() if wide else h)
"""
    (tmp_path / "net.py").write_text(source + body)
    inputs = ("--input", "2x8", "--input", "wide=True")
    done = iftplan(
        "plan",
        "net.py:Net",
        *inputs,
        "--transform",
        "wide",
        "--sparsity",
        "0.5",
        "-o",
        "plan.json",
        cwd=tmp_path,
    )
    assert done.code == 0, done
    assert json.loads((tmp_path / "plan.json").read_text())["input"] == ["2x8", "wide=True"]
    done = iftplan("audit", "plan.json", "--model", "net.py:Net", cwd=tmp_path)
    assert done.code == 0, done
    assert (
        iftplan("audit", "net.py:Net", *inputs, "--budget", str(2 * (512 + 4096 + 256)), cwd=tmp_path).code
        == 0
    )


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))


IMAGE = (InputSpec((1, 3, 8, 8)),)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("engine", ENGINES)
def test_lazy_modules_are_counted_and_stay_lazy(engine: str, device: str) -> None:
    with torch.device(device):
        model = _lazy()
    before = repr(model)
    # 8·27 at 6×6 positions, and 288·10
    assert measure(model, IMAGE, engine=engine).macs == 10656
    assert measure_step(model, IMAGE).forward == 10656
    spec = read_model(model, IMAGE, widths=True)
    assert (spec.macs, spec.refusal) == (10656, "")
    assert [layer.weight for layer in spec.layers] == ["0.weight", "3.weight"]
    assert repr(model) == before and isinstance(model[3], nn.LazyLinear)


def test_lazy_modules_that_do_not_run_say_so() -> None:
    with pytest.raises(
        MeasureError, match="lazy modules of Sequential could not be initialised by a forward pass on 8"
    ):
        measure(nn.Sequential(nn.LazyConv2d(8, 3)), [InputSpec((8,))])


def test_a_plan_of_lazy_modules_is_audited(tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.LazyConv2d(32, 3), nn.ReLU(), "
        "nn.LazyConv2d(32, 3), nn.Flatten(), nn.LazyLinear(10))\n"
    )
    given = ("--input", "1x3x10x10")
    done = iftplan(
        "plan",
        "lazy.py:net",
        *given,
        "--transform",
        "wide",
        "--sparsity",
        "0.5",
        "-o",
        "p.json",
        cwd=tmp_path,
    )
    assert done.code == 0, done
    done = iftplan("audit", "p.json", "--model", "lazy.py:net", "--cross-check", cwd=tmp_path)
    assert done.code == 0, done
    (tmp_path / "iftplan.toml").write_text(
        '[models.m]\nsource = "lazy.py:net"\ninputs = ["1x3x10x10"]\nbudget = { macs = "1G" }\n'
    )
    assert iftplan("check", cwd=tmp_path).code == 0


_SCAN = """
import torch
from torch import nn

@torch.library.custom_op("mylib::scan", mutates_args=())
def scan(x: torch.Tensor) -> torch.Tensor:
    return x.clone()

@scan.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)

class Scanned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(scan(self.b(scan(self.a(x)))))
"""


@pytest.mark.slow
def test_costs_that_are_vouched_for_reach_every_command(tmp_path: Path) -> None:
    (tmp_path / "scan.py").write_text(_SCAN)
    own = ("scan.py:Scanned", "--input", "2x8")
    for command in (
        ("spec", *own),
        ("plan", *own),
        ("sweep", *own, "--transforms", "wide", "--sparsities", "0.5"),
    ):
        refused = iftplan(*command, cwd=tmp_path)
        assert refused.code != 0 and "mylib::scan" in refused.err, refused
        for cost, macs in (("0", 2 * (512 + 4096 + 256)), ("2*out", 2 * (512 + 4096 + 256) + 2 * 2 * 2 * 64)):
            done = iftplan(*command, "--allow", f"mylib::scan={cost}", "-o", "out.json", cwd=tmp_path)
            assert done.code == 0, done
            document = (tmp_path / "out.json").read_text()
            assert command[0] == "sweep" or "mylib::scan was counted with the cost that you gave" in document
            if command[0] == "spec":
                assert f"{macs:,}".replace(",", " ") in done.err + done.out
    done = iftplan(
        "plan",
        *own,
        "--transform",
        "wide",
        "--sparsity",
        "0.5",
        "--allow",
        "mylib::scan=2*out",
        "-o",
        "p.json",
        cwd=tmp_path,
    )
    assert done.code == 0, done
    done = iftplan(
        "audit", "p.json", "--model", "scan.py:Scanned", "--allow", "mylib::scan=2*out", cwd=tmp_path
    )
    assert done.code == 0, done


def test_python_takes_vouched_costs_too(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(_SCAN.replace("mylib", "mylib_python"), "scan", "exec"), namespace)
    model = namespace["Scanned"]()
    with pytest.raises(MeasureError, match=r"pass `allow=\['mylib_python::scan=0'\]`"):
        ift.read_model(model, "2x8")
    for allow in (["mylib_python::scan=0"], {"mylib_python::scan": 0}):
        spec = ift.read_model(model, "2x8", allow=allow)
        assert (spec.macs, spec.refusal) == (2 * (512 + 4096 + 256), "")
    assert ift.read_model(model, "2x8", allow={"mylib_python::scan": "2*out"}).macs == 9728 + 512
