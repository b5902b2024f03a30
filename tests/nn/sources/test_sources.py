"""MODEL arguments: what they mean, what they build, and how bad ones are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from iftplan.base.errors import InputError
from iftplan.models.sources import SourceKind, parse_source
from iftplan.models.spec import InputSpec
from iftplan.models.zoo.entries import ZOO
from iftplan.nn.sources import build, construct

FACTORIES = """
from dataclasses import dataclass
import torch
from torch import nn

@dataclass
class Sizes:
    width: "int" = 3

def network():
    print("a factory that talks")
    return nn.Sequential(nn.Linear(4, Sizes().width), nn.Dropout())

class Network(nn.Module):
    pass

def needs_values():
    scale = torch.ones(3).sum().item()
    first = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = first.weight
    return nn.Sequential(first, tied, nn.Linear(4, int(scale)))

instance = nn.Linear(2, 2)
number = 5

def raises():
    raise ValueError("two\\nlines")

def returns_text():
    return "a network"

def returns_nothing():
    pass

def needs_arguments(width):
    return nn.Linear(width, width)

def leaves():
    raise SystemExit(3)
"""

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with factories, configurations and files that are neither."""
    configs = {
        "llama": LLAMA,
        "short": LLAMA | {"max_position_embeddings": 16},
        "kernel": LLAMA | {"attn_implementation": "a/kernel", "_attn_implementation": "flash_attention_2"},
        "bfloat": LLAMA | {"dtype": "bfloat16", "use_cache": True},
        "remote": LLAMA | {"auto_map": {"AutoModel": "code.Model"}},
        "odd_type": LLAMA | {"model_type": "llamma"},
        "odd_class": LLAMA | {"architectures": ["LlamaForCausalML"]},
        "not_a_model": LLAMA | {"architectures": ["LlamaConfig"]},
        "other_class": LLAMA | {"architectures": ["GPT2Model"]},
        "no_class": {k: v for k, v in LLAMA.items() if k != "architectures"},
        "class_number": LLAMA | {"architectures": 5},
        "no_type": {"hidden_size": 64},
        "bad_value": LLAMA | {"hidden_size": "wide"},
        "bad_heads": LLAMA | {"hidden_size": 63},
        "backbone": {"model_type": "detr", "architectures": ["DetrModel"], "backbone": "resnet50"},
        "list": [LLAMA],
        "vit": {"model_type": "vit", "architectures": ["ViTModel"], "image_size": 64, "num_channels": 1},
        "t5": {"model_type": "t5", "architectures": ["T5Model"], "num_layers": 1, "d_model": 64},
    }
    for name, config in configs.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "factories.py").write_text(FACTORIES)
    (tmp_path / "my_networks.py").write_text(FACTORIES)
    (tmp_path / "syntax.py").write_text("def network(:")
    (tmp_path / "imports.py").write_text("import a_module_that_is_missing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind", "target", "attribute", "runs_user_code"),
    [
        ("zoo:resnet18", SourceKind.ZOO, "resnet18", "", False),
        ("hf:dir/config.json", SourceKind.TRANSFORMERS, "dir/config.json", "", False),
        ("hf:dir#LlamaModel", SourceKind.TRANSFORMERS, "dir", "LlamaModel", False),
        ("timm:resnet18.a1_in1k", SourceKind.TIMM, "resnet18.a1_in1k", "", False),
        ("torchvision:resnet18", SourceKind.TORCHVISION, "resnet18", "", False),
        ("package.module:factory", SourceKind.MODULE, "package.module", "factory", True),
        ("a/file.py:factory", SourceKind.FILE, "a/file.py", "factory", True),
        ("C:\\a\\file.py:factory", SourceKind.FILE, "C:\\a\\file.py", "factory", True),
        ("a/spec.json", SourceKind.SPEC, "a/spec.json", "", False),
    ],
)
def test_forms(text: str, kind: SourceKind, target: str, attribute: str, runs_user_code: bool) -> None:
    source = parse_source(text)
    assert (source.text, source.kind, source.target, source.attribute) == (text, kind, target, attribute)
    assert source.runs_user_code is runs_user_code
    assert source.inputs == (ZOO["resnet18"].inputs if kind is SourceKind.ZOO else ())


def test_parsing_needs_no_framework() -> None:
    code = "import sys, iftplan.models.sources as s; s.parse_source('zoo:resnet18'); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


BAD = [  # the argument, and what the message must say
    ("", "not a form that iftplan knows"),
    ("resnet18", "zoo:resnet18"),
    ("zoo:resnet19", "zoo:resnet18"),
    ("zoo:", "It has resnet18-cifar"),
    ("zoo:qqqq", "It has resnet18-cifar"),
    ("hf:", "must follow the colon"),
    ("timm:", "must follow the colon"),
    ("nonsense", "zoo:NAME"),
    ("factories.py", "factories.py:FACTORY"),
    ("factories.py:", "not a Python name"),
    ("factories.py:two words", "not a Python name"),
    (":network", "neither a .py file nor the name of a module"),
    ("my networks:network", "neither a .py file nor the name of a module"),
    ("spec.json", "holds a model's shapes"),
    ("factory.py:network", "factories.py'?"),
    ("nowhere/f.py:network", "no Python file"),
    ("factories.py:netwerk", "Did you mean 'network'"),
    ("factories.py:qqqqqqq", "It has"),
    ("factories.py:number", "is of type int"),
    ("factories.py:raises", "ValueError: two lines"),
    ("factories.py:returns_text", "a str"),
    ("factories.py:returns_nothing", "None"),
    ("factories.py:needs_arguments", "cannot be called without width"),
    ("factories.py:leaves", "SystemExit: 3"),
    ("syntax.py:network", "SyntaxError"),
    ("imports.py:network", "a_module_that_is_missing"),
    ("no_such_module:network", "cannot be imported"),
    ("my_networks:netwerk", "Did you mean 'network'"),
    ("my_networks:raises", "ValueError: two lines"),
    ("hf:missing.json", "cannot be read"),
    ("hf:.", "config.json cannot be read"),
    ("hf:broken.json", "is not JSON"),
    ("hf:binary.json", "is not JSON"),
    ("hf:list.json", "must be a JSON object"),
    ("hf:remote.json", "auto_map"),
    ("hf:odd_type.json", "llama"),
    ("hf:no_type.json", "model_type None"),
    ("hf:odd_class.json", "LlamaForCausalLM"),
    ("hf:not_a_model.json", "no model class 'LlamaConfig'"),
    ("hf:other_class.json", "gpt2"),
    ("hf:no_class.json", "hf:no_class.json#LlamaForCausalLM"),
    ("hf:class_number.json", "list of class names"),
    ("hf:llama.json#os.system", "no model class"),
    ("hf:bad_value.json", "hidden_size"),
    ("hf:bad_heads.json", "refused by transformers"),
    ("hf:backbone.json", "backbone_config"),
]


@pytest.mark.parametrize(("text", "part"), BAD)
def test_bad_sources_are_refused_in_one_paragraph(folder: Path, text: str, part: str) -> None:
    with pytest.raises(InputError) as refusal:
        build(text)
    message = str(refusal.value)
    assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    ["factories.py:network", "my_networks:network", "factories.py:Network", "factories.py:instance"],
)
def test_factories_build_in_eval_mode_on_meta(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build(text)
    assert not any(module.training for module in model.modules())
    assert all(p.is_meta for p in model.parameters())
    assert capsys.readouterr().out == ""  # stdout is for data


def test_a_factory_that_needs_values_is_built_on_the_cpu_and_says_so(folder: Path) -> None:
    built = construct("factories.py:needs_values")
    assert all(p.is_meta for p in built.model.parameters())
    assert len(list(built.model.parameters())) == 5  # tied weights are still one
    (assumption,) = built.assumptions
    assert "built on the CPU" in assumption


def test_a_real_device_gets_real_weights(folder: Path) -> None:
    model = build("factories.py:network", device="cpu")
    assert model(torch.ones(1, 4)).isfinite().all()


@pytest.mark.parametrize("text", ["hf:llama.json", "hf:saved", "hf:kernel.json", "hf:bfloat.json"])
def test_configurations_are_data(folder: Path, text: str) -> None:
    built = construct(text)
    assert type(built.model).__name__ == "LlamaForCausalLM"
    assert built.model.config.use_cache is False
    assert built.model.config._attn_implementation == "sdpa"
    assert {p.dtype for p in built.model.parameters()} == {torch.float32}
    assert built.inputs == (InputSpec((1, 128), "int64"),)


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("hf:short.json", "1x16:int64"),
        ("hf:llama.json#LlamaModel", "1x128:int64"),
        ("hf:vit.json", "1x1x64x64"),
        ("hf:t5.json", "input_ids=1x128:int64 decoder_input_ids=1x128:int64"),
        ("hf:t5.json#T5EncoderModel", "1x128:int64"),
        ("factories.py:network", ""),
    ],
)
def test_default_inputs_come_from_the_configuration(folder: Path, text: str, inputs: str) -> None:
    assert " ".join(map(str, construct(text).inputs)) == inputs


class _Model(nn.Linear):
    default_cfg = {"input_size": (3, 32, 32)}  # noqa: RUF012  timm has it as a plain dict


def _timm() -> ModuleType:
    return SimpleNamespace(
        is_model=lambda name: name == "tiny",
        list_models=lambda: ["tiny"],
        create_model=lambda name, pretrained: _Model(2, 2) if not pretrained else None,
    )  # type: ignore[return-value]


def _tiny(*, weights: object = "download", weights_backbone: object = "download") -> nn.Module:
    if (weights, weights_backbone) != (None, None):
        raise AssertionError("would have downloaded weights")
    return nn.Linear(2, 2)


def test_timm_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", _timm())
    assert construct("timm:tiny").inputs == (InputSpec((1, 3, 32, 32)),)
    with pytest.raises(InputError, match="Did you mean 'tiny'"):
        build("timm:tini")


def test_torchvision_models(monkeypatch: pytest.MonkeyPatch) -> None:
    models = SimpleNamespace(list_models=lambda: ["tiny"], get_model_builder=lambda name: _tiny)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    assert isinstance(build("torchvision:tiny"), nn.Linear)
    with pytest.raises(InputError, match="Did you mean 'tiny'"):
        build("torchvision:tine")


@pytest.mark.parametrize("text", ["timm:resnet18", "torchvision:resnet18"])
def test_missing_libraries_say_what_to_install(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = text.partition(":")[0]
    for name in (package, f"{package}.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Missing(package), *sys.meta_path])
    with pytest.raises(InputError, match=f"pip install {package}"):
        build(text)


@pytest.mark.parametrize("text", ["timm:resnet18", "torchvision:resnet18"])
def test_broken_libraries_say_so(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = text.partition(":")[0]
    for name in (package, f"{package}.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / f"{package}.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InputError, match=r"installed but cannot be imported \(RuntimeError: operator"):
        build(text)


class _Missing:
    """An import finder for which one package does not exist."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=self.package)
