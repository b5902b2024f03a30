"""Models that are not in the zoo, made sparse: ten of transformers' and three awkward ones written by hand.

    python benchmarks/counting/hosts.py [--sparsity 0.5] [--families wide,parallel]

Each is planned in scope matrices, applied to real tensors, audited by three engines on its own masks, and run forward
and backward. A row says `passed`, or which module was refused and why. Sizes are small, so that it runs in minutes.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable

import torch
import transformers as hf
from torch import Tensor, nn

import iftplan as ift
from iftplan.models.notation import parse_input
from iftplan.nn import apply, measure_applied
from iftplan.nn.meta.inputs import make_inputs
from iftplan.report.table import Table
from iftplan.report.terminal import print_table

ENGINES = ("meta", "flop_counter", "fvcore")
FAMILIES = "wide,parallel,factorized,doped,lowrank"


class Concatenated(nn.Module):
    """Channels that grow by concatenation, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grow = nn.ModuleList(nn.Conv2d(16 + 8 * i, 8, 3, padding=1) for i in range(3))
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for layer in self.grow:
            x = torch.cat([x, layer(x).relu()], 1)
        return self.head(x.mean((2, 3)))


class CalledTwice(nn.Module):
    """One module at two places of the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = nn.Linear(24, 32), nn.Linear(32, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head(self.shared(self.shared(x).relu()).relu())


class FunctionalAdd(nn.Module):
    """Residual sums and a scale that no module stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(24, 32), nn.Linear(32, 48), nn.Linear(48, 32)
        self.scale, self.head = nn.Parameter(torch.ones(32)), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.add(x, self.b(nn.functional.gelu(self.a(x))) * self.scale)
        return self.head(torch.add(x, x.tanh()))


def hosts() -> dict[str, tuple[Callable[[], nn.Module], tuple[str, ...]]]:
    image, tokens = ("2x3x64x64",), ("2x16:int64",)
    text = {"vocab_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {"hidden_size": 64, "intermediate_size": 128, "image_size": 64, "patch_size": 16}
    llama = {**text, "hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2}
    t5 = {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    whisper = {"d_model": 64, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128}
    distil = {"vocab_size": 128, "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4}
    convnext = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 2, 1]}
    return {
        "ConvNeXt": (lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(**convnext)), image),
        "Swin": (
            lambda: hf.SwinForImageClassification(
                hf.SwinConfig(
                    image_size=64,
                    patch_size=2,
                    embed_dim=24,
                    depths=[1, 1, 2, 1],
                    num_heads=[1, 2, 4, 8],
                    window_size=4,
                )
            ),
            image,
        ),
        "DeiT": (
            lambda: hf.DeiTForImageClassification(
                hf.DeiTConfig(**vision, num_hidden_layers=2, num_attention_heads=4)
            ),
            image,
        ),
        "RegNet": (
            lambda: hf.RegNetForImageClassification(
                hf.RegNetConfig(
                    embedding_size=16, hidden_sizes=[32, 64, 96, 128], depths=[1, 1, 2, 1], groups_width=16
                )
            ),
            image,
        ),
        "EfficientNet": (
            lambda: hf.EfficientNetForImageClassification(
                hf.EfficientNetConfig(
                    image_size=64, width_coefficient=0.5, depth_coefficient=0.5, hidden_dim=640
                )
            ),
            image,
        ),
        "DistilBERT": (lambda: hf.DistilBertForMaskedLM(hf.DistilBertConfig(**distil)), tokens),
        "T5": (
            lambda: hf.T5ForConditionalGeneration(hf.T5Config(**t5)),
            ("input_ids=2x16:int64", "decoder_input_ids=2x8:int64"),
        ),
        "Llama, grouped queries": (lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**llama)), tokens),
        "Mixtral": (
            lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**llama, num_local_experts=4)),
            tokens,
        ),
        "Whisper encoder": (
            lambda: hf.models.whisper.modeling_whisper.WhisperEncoder(
                hf.WhisperConfig(**whisper, max_source_positions=100)
            ),
            ("2x80x200",),
        ),
        "concatenation": (Concatenated, ("2x3x16x16",)),
        "called twice": (CalledTwice, ("2x24",)),
        "functional adds": (FunctionalAdd, ("2x24",)),
    }


def outcome(build: Callable[[], nn.Module], inputs: tuple[str, ...], family: str, sparsity: str) -> str:
    torch.manual_seed(0)
    model = build().eval()
    if hasattr(model, "config"):
        model.config.use_cache = False
    try:
        spec = ift.read_model(model, *inputs, widths=family in ("wide", "lowrank"))
        plan = ift.plan(spec, family, sparsity, scope="matrices")
        applied = apply(plan, model)
    except ift.IftplanError as error:
        return f"refused: {error}"
    report = measure_applied(plan, applied, engines=ENGINES)
    _backward(applied, inputs)
    equal = len(set(report.counters.values())) == 1
    kept = sum(layer.maskable for layer in plan.layers)
    return f"{report.verdict}{'' if equal else ', counters differ'}: {kept} masked, ratio {float(plan.ratio(plan.scope)):.6f} {' '.join(report.problems)}"


def _backward(model: nn.Module, inputs: tuple[str, ...]) -> None:
    args, kwargs = make_inputs(list(map(parse_input, inputs)), "cpu")
    args = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in args)
    output = model.train()(*args, **kwargs)
    output = getattr(output, "logits", getattr(output, "last_hidden_state", output))
    output.float().square().mean().backward()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sparsity", default="0.5")
    parser.add_argument("--families", default=FAMILIES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows = []
    for name, (build, inputs) in hosts().items():
        for family in given.families.split(","):
            rows.append((name, family, outcome(build, inputs, family, given.sparsity)))
            print(*rows[-1], sep=" | ", flush=True)
    print_table(
        Table(("model", "family", "outcome"), tuple(rows), f"sparsity {given.sparsity}, scope matrices")
    )


if __name__ == "__main__":
    main()
