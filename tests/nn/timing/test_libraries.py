"""Libraries in processes of their own: what they are asked, and what becomes of those that fail. Stand-ins, not the real ones."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from iftplan.base.errors import InputError
from iftplan.masks import Unstructured
from iftplan.nn.timing import libraries as timed
from iftplan.nn.timing import library_server
from iftplan.nn.timing.candidates import candidates
from iftplan.nn.timing.interleaving import race
from iftplan.nn.timing.libraries import Library, LibraryRun, installed_libraries
from iftplan.nn.timing.work import Lost
from iftplan.plans.speed.timings import LayerPair, pair_of_layer
from tests.support.cli_runs import many

pytest.importorskip("numba", reason="numba, of the extra bench, is not installed")

SPARSELAB = """
    import importlib.util
    print("a library that talks on its way in")
    assert importlib.util.find_spec("candidates") is None  # the server's neighbours are not in its way

    class PaddedCSR:
        @staticmethod
        def from_dense(weight):
            return weight

    def spmm(weight, columns):
        print("and on every run")
        return weight @ columns
"""

DEEPSPARSE = """
    from onnx.reference import ReferenceEvaluator

    class Engine:
        def __init__(self, path):
            self.reference = ReferenceEvaluator(path)

        def run(self, arrays, val_inp=True):
            return self.reference.run(None, {"x": arrays[0]})

    def compile_model(path, batch_size, num_cores):
        assert batch_size > 0 and num_cores == 1
        return Engine(path)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a module where interpreters that are started from here look for it."""

    def put(name: str, source: str) -> None:
        folder = tmp_path / "libraries" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(textwrap.dedent(source))
        paths = [str(tmp_path / "libraries"), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))

    return put


def pair(text: str = "linear:24-40@9") -> LayerPair:
    return pair_of_layer(text, Fraction(3, 4), Unstructured())


def arrays(outputs: int = 6, inputs: int = 5, rows: int = 3) -> dict[str, torch.Tensor]:
    return {"weight": torch.randn(outputs, inputs), "input": torch.randn(rows, inputs)}


LINEAR = {"threads": 1, "step": False, "padding": None}


def test_what_is_installed_is_found_where_it_is(install: Callable[[str, str], None], tmp_path: Path) -> None:
    assert installed_libraries() == {}, "this test needs an environment without sparselab and DeepSparse"
    install("deepsparse", "raise RuntimeError('found, not imported')")
    assert installed_libraries() == {"deepsparse": Library(sys.executable, "")}
    (tmp_path / "env/bin").mkdir(parents=True)
    other = tmp_path / "env/bin/python"
    other.symlink_to(sys.executable)
    told = tmp_path / "libraries/deepsparse-1.8.0.dist-info/METADATA"
    told.parent.mkdir()
    told.write_text("Metadata-Version: 2.1\nName: deepsparse\nVersion: 1.8.0\n")
    assert installed_libraries([str(tmp_path / "env")]) == {"deepsparse": Library(str(other), "1.8.0")}


@pytest.mark.parametrize("environment", ["/no/such/python", "folder", "/bin/false"])
def test_environments_that_are_none(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(InputError, match="not a Python interpreter that can list its libraries"):
        installed_libraries([environment])


@pytest.mark.parametrize("step", [False, True])
def test_a_linear_layer_in_sparselab(install: Callable[[str, str], None], step: bool) -> None:
    install("sparselab", SPARSELAB)
    given = arrays()
    run = LibraryRun("sparselab", sys.executable, given, LINEAR | {"step": step})
    torch.testing.assert_close(run.output(), given["input"] @ given["weight"].T)
    assert run.prepared > 0 and all(run.seconds(n) > 0 for n in (1, 5))
    folder = Path(run.folder.name)
    assert folder.is_dir()
    run.close()
    assert run.process.returncode is not None and not folder.exists()


@pytest.mark.parametrize("text", ["linear:24-40@9", "conv3x3:8-8@5x5", "conv1x1:8-8@4x4", "conv3x1:4-4@6x6"])
def test_layers_in_deepsparse_are_what_they_are_as_onnx(
    install: Callable[[str, str], None], text: str
) -> None:
    pytest.importorskip("onnx", reason="the stand-in reads the layer with onnx")
    install("deepsparse", DEEPSPARSE)
    found = candidates(pair(text), 2, step=False, libraries=installed_libraries())
    try:
        assert "deepsparse" in found.work, found.left_out
        assert found.macs["deepsparse"] == found.macs["sparse"]
        timings = race(found.work, found.macs, found.prepared, 2, 1, found.left_out)
        assert {"dense", "sparse", "deepsparse"} <= {t.backend for t in timings}
        assert next(t for t in timings if t.backend == "deepsparse").prepared > 0
    finally:
        found.close()


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # of the exporter that DeepSparse is given its networks by
def test_a_network_in_deepsparse(install: Callable[[str, str], None], tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the stand-in reads the network with onnx")
    install("deepsparse", DEEPSPARSE)
    net, x = (
        torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3)),
        torch.randn(2, 5),
    )
    path = str(tmp_path / "any-name.onnx")
    torch.onnx.export(net, (x,), path, dynamo=False, opset_version=13, input_names=["x"])
    run = LibraryRun("deepsparse", sys.executable, {"input": x}, LINEAR, network=path)
    try:
        torch.testing.assert_close(run.output(), net(x).detach())
        assert run.seconds(2) > 0
    finally:
        run.close()


FAILS = {
    "says": ("raise ImportError('needs another numpy')", "ImportError: needs another numpy"),
    "dies": ("import os; os.abort()", "ended with status -6"),
    "explains": ("import os, sys; sys.stderr.write('no such instruction\\n'); sys.stderr.flush(); os._exit(3)", "ended with status 3: no such instruction"),
    "hangs": ("import time; time.sleep(600)", "gave no answer in 2 s"),
    "incomplete": ("", "AttributeError: module 'sparselab' has no attribute 'PaddedCSR'"),
}  # fmt: skip


@pytest.mark.parametrize("how", FAILS)
def test_libraries_that_do_not_start(
    install: Callable[[str, str], None], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, reason = FAILS[how]
    install("sparselab", source)
    begin = time.monotonic()
    with pytest.raises(Lost) as lost:
        LibraryRun("sparselab", sys.executable, arrays(), LINEAR, start=2 if how == "hangs" else 60)
    assert str(lost.value) == reason
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("third", "reason"),
    [("os._exit(9)", "ended with status 9: and on every run"), ("time.sleep(600)", "gave no answer in 1 s"), ("1 / 0", "ZeroDivisionError: division by zero")],
)  # fmt: skip
def test_a_library_that_is_lost_on_the_way_leaves_the_others(
    install: Callable[[str, str], None], third: str, reason: str
) -> None:
    install("sparselab", f"import os, time\n{textwrap.dedent(SPARSELAB)}".replace(
        '    print("and on every run")', f"    print('and on every run', flush=True)\n    spmm.runs += 1\n    if spmm.runs == 3: {third}"
    ) + "\nspmm.runs = 0\n")  # fmt: skip
    run = LibraryRun("sparselab", sys.executable, arrays(), LINEAR, limit=1)
    try:
        left_out: dict[str, str] = {}
        work: dict[str, Any] = {
            "dense": lambda: sum(range(1000)),
            "sparselab": run,
            "sparse": lambda: sum(range(2000)),
        }
        timings = race(work, dict.fromkeys(work, 1), {}, 3, 1, left_out)
    finally:
        run.close()
    assert [t.backend for t in timings] == ["dense", "sparse"]
    assert left_out == {"sparselab": reason}


def test_reasons_of_those_that_are_not_measured(install: Callable[[str, str], None]) -> None:
    def reasons(text: str, step: bool, libraries: dict[str, Library]) -> dict[str, str]:
        found = candidates(pair(text), 2, step=step, libraries=libraries)
        found.close()
        assert not {"sparselab", "deepsparse"} & set(found.work)
        return {name: found.left_out[name] for name in ("sparselab", "deepsparse")}

    missing = reasons("linear:8-8@3", False, {})
    assert all("not installed" in reason and "--python" in reason for reason in missing.values())
    install("sparselab", SPARSELAB.replace("weight @ columns", "2 * weight @ columns"))
    wrong = reasons("linear:8-8@3", False, installed_libraries())
    assert wrong["sparselab"].startswith("its output is not the layer's")
    here = dict.fromkeys(("sparselab", "deepsparse"), Library(sys.executable, ""))
    assert reasons("conv3x3:4-4@4x4", True, here) == {
        "sparselab": "has linear layers alone",
        "deepsparse": "computes inference alone",
    }


def test_the_server_needs_nothing_of_this_project(
    install: Callable[[str, str], None], tmp_path: Path
) -> None:
    install("sparselab", SPARSELAB)
    code = f"""
import runpy, sys
for name in ("iftplan", "sympy"):
    sys.modules[name] = None
sys.argv = ["server", "sparselab", {str(tmp_path)!r}]
runpy.run_path({library_server.__file__!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True)
    assert json.loads(done.stdout)["error"].startswith("FileNotFoundError"), done.stderr


def test_the_command_times_them_in_the_same_rounds(
    install: Callable[[str, str], None], tmp_path: Path
) -> None:
    install("sparselab", SPARSELAB)
    once = ["bench", "--layer", "linear:24-40@9", "--rounds", "2", "--format", "json", "--threads", "1,2"]
    ran, refused = many([once, [*once, "--python", "/no/such/python"]], tmp_path)
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["libraries"] == {"sparselab": ""}
    assert [(x["threads"], x["pass"]) for x in document["layers"]] == [
        (1, "forward"), (1, "step"), (2, "forward"), (2, "step"),
    ]  # fmt: skip
    for layer in document["layers"]:
        assert "sparselab" in {t["backend"] for t in layer["timings"]}
        assert "not installed" in layer["left_out"]["deepsparse"] or layer["pass"] == "step"
    assert refused.code == 2 and "not a Python interpreter that can list its libraries" in refused.message


def test_every_library_can_be_served() -> None:
    assert set(library_server.LAYERS) == set(timed.LIBRARIES)
