"""Forward passes that leave the thread or the process: counted, or refused in a sentence, never passed over."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iftplan.base.errors import MeasureError
from iftplan.models.spec import InputSpec
from iftplan.nn.counting.measure import measure
from iftplan.nn.counting.training_step import measure_step
from iftplan.nn.reading.read import read_model
from tests.support.cli_runs import iftplan

ENGINES = ("meta", "flop_counter", "fvcore")
ROWS = (InputSpec((2, 8)),)
FOUR = 4 * 2 * 8 * 8


class Four(nn.Module):
    """Four layers, run by a function of the layers and the input."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return sum(self.run([*self.layers], x))


def _threads(layers: list[nn.Module], x: Tensor, *, products: bool = False) -> list[Tensor]:
    results: dict[int, Tensor] = {}

    def work(k: int) -> None:
        results[k] = x @ layers[k].weight if products else layers[k](x)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[k] for k in range(4)]


def _pool(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    with ThreadPoolExecutor(4) as pool:
        return [*pool.map(lambda layer: layer(x), layers)]


def _one_of_four(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    with ThreadPoolExecutor(1) as pool:
        return [
            *(layer(x) for layer in layers[:3]),
            pool.submit(torch.matmul, x, layers[3].get_parameter("weight")).result(),
        ]


_STANDING = ThreadPoolExecutor(1)


def _standing_pool(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    return [_STANDING.submit(torch.matmul, x, layer.get_parameter("weight")).result() for layer in layers]


def _multiprocessing_pool(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    with ThreadPool(2) as pool:
        return pool.map(lambda layer: layer(x), layers)


class _Subclass(threading.Thread):
    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.layer, self.x = layer, x

    def run(self) -> None:
        self.result = torch.nn.functional.linear(self.x, self.layer.get_parameter("weight"))


def _subclassed(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
    threads = [_Subclass(layer, x) for layer in layers]
    for thread in threads:
        thread.start()
        thread.join()
    return [thread.result for thread in threads]


ELSEWHERE = {
    "threads": _threads,
    "products in threads": lambda layers, x: _threads(layers, x, products=True),
    "pool": _pool,
    "one of four": _one_of_four,
    "a pool from before": _standing_pool,
    "multiprocessing": _multiprocessing_pool,
    "subclass": _subclassed,
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_work_in_other_threads_is_refused(name: str, engine: str) -> None:
    with pytest.raises(MeasureError, match=r"starts a (thread|pool) of its own"):
        measure(Four(ELSEWHERE[name]), ROWS, engine=engine)


@pytest.mark.parametrize(
    "read", [lambda m: measure_step(m, ROWS), lambda m: read_model(m, ROWS, widths=True)]
)
def test_steps_and_specs_refuse_it_too(read: Callable[[nn.Module], object]) -> None:
    with pytest.raises(MeasureError, match="starts a thread of its own"):
        read(Four(_pool))


@pytest.mark.parametrize("engine", ["meta", "flop_counter"])
def test_forks_of_torchscript_are_counted(engine: str) -> None:
    def forked(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
        return [torch.jit.wait(future) for future in [torch.jit.fork(layer, x) for layer in layers]]

    assert measure(Four(forked), ROWS, engine=engine).macs == FOUR
    assert measure(Four(forked), ROWS, engine="fvcore").unknown == {"prim::fork": 4}


@torch.jit.script
def _branches(x: Tensor) -> Tensor:
    if x.size(0) > 1:
        return x @ x.t()
    return x


def test_fvcore_names_scripted_functions_that_it_does_not_look_into() -> None:
    class Scripted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return _branches(x)

    assert measure(Scripted(), ROWS).macs == 2 * 2 * 8
    assert measure(Scripted(), ROWS, engine="fvcore").unknown == {"prim::CallFunction": 1}


def test_threads_that_compute_nothing_are_none_of_our_business() -> None:
    def logged(layers: list[nn.Module], x: Tensor) -> list[Tensor]:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        return [layer(x) for layer in layers]

    start = threading.Thread.start
    assert measure(Four(logged), ROWS).macs == FOUR
    assert threading.Thread.start is start


class _Stop(BaseException):
    pass


def _raise(error: BaseException) -> None:
    raise error


ENDS = {
    "sys.exit": (lambda: _raise(SystemExit(0)), r"sys\.exit\(0\)"),
    "exit": (lambda: _raise(SystemExit()), r"sys\.exit\(\)"),
    "os._exit": (lambda: os._exit(0), r"os\._exit\(0\)"),
    "exec": (lambda: os.execl("/bin/true", "true"), r"os\.execv\('/bin/true'"),
    "other": (lambda: _raise(_Stop()), "raise _Stop"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ENDS)
def test_a_pass_that_ends_the_process_is_a_measuring_error(name: str, engine: str) -> None:
    end, told = ENDS[name]
    exit_ = os._exit
    with pytest.raises(MeasureError, match=f"calls {told}.* in its forward pass"):
        measure(Four(lambda layers, x: end()), ROWS, engine=engine)
    assert os._exit is exit_


_MODELS = """
import os, sys
from torch import nn

class Quits(nn.Linear):
    def __init__(self): super().__init__(8, 8)
    def forward(self, x): sys.exit(0)

class Ends(Quits):
    def forward(self, x): os._exit(0)

class Later(Quits):
    calls = 0
    def forward(self, x):
        Later.calls += 1
        if Later.calls > 1: sys.exit(0)
        return nn.Linear.forward(self, x)

def factory(): sys.exit(0)
def ending(): os._exit(0)
"""


@pytest.mark.slow
def test_no_command_passes_when_the_model_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(_MODELS)
    (tmp_path / "quits.py").write_text("import os\nos._exit(0)\n")
    (tmp_path / "iftplan.toml").write_text('[models.m]\nsource = "models.py:Ends"\ninputs = ["2x8"]\n')
    for source, code in (
        ("models.py:Quits", 3),
        ("models.py:Ends", 3),
        ("models.py:factory", 2),
        ("models.py:ending", 3),
        ("quits.py:Net", 3),
    ):
        for command in (
            ("audit", source, "--budget", "1"),
            ("plan", source, "-o", "out.json"),
            ("spec", source, "-o", "out.json"),
            ("diff", source, "zoo:resnet18-cifar"),
        ):
            done = iftplan(*command, "--input", "2x8", cwd=tmp_path)
            assert done.code == code, (command, done)
            assert "exit(0)" in done.message or "SystemExit: 0" in done.message
            assert not (tmp_path / "out.json").exists()
    done = iftplan("plan", "models.py:Later", "--input", "2x8", "-o", "out.json", cwd=tmp_path)
    assert (done.code, (tmp_path / "out.json").exists()) == (3, False), done
    done = iftplan("check", cwd=tmp_path)
    assert done.code == 3, done
    assert "os._exit(0)" in done.out + done.err
