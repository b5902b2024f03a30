"""`iftplan models`: what MODEL can name."""

from __future__ import annotations

from iftplan.base.documents import Document, with_digest
from iftplan.cli.options import FormatOption, OutputOption
from iftplan.cli.output import emit, say_next
from iftplan.models.zoo.entries import ZOO
from iftplan.report.table import Table

EXAMPLE = """
Example:

  $ iftplan models --format csv

  name,description,input,source
  zoo:resnet18-cifar,"ResNet-18, 3×3 stride-1 stem without pooling, 100 classes, 32×32",1x3x32x32,"He et al. 2015, arXiv 1512.03385; CIFAR form as in Saxena et al., arXiv 2303.11525"
  zoo:resnet34-cifar,"ResNet-34, 3×3 stride-1 stem without pooling, 100 classes, 32×32",1x3x32x32,"He et al. 2015, arXiv 1512.03385; CIFAR form as in Saxena et al., arXiv 2303.11525"
  …
"""

_OTHERS = (
    ("hf:DIR_OR_CONFIG.json[#ClassName]", "any transformers configuration, read as data", "transformers"),
    ("timm:NAME", "any model of timm, untrained", "timm"),
    ("torchvision:NAME", "any model of torchvision, untrained", "torchvision"),
    (
        "package.module:factory",
        "a function without arguments that returns a torch.nn.Module",
        "your Python path",
    ),
    ("path/file.py:factory", "the same in a file", "your code"),
    ("spec.json", "a model spec written by iftplan spec", "iftplan"),
)


def command(form: FormatOption = None, output: OutputOption = None) -> None:
    """List the bundled models and the other ways to name one.

    Every command that takes MODEL takes each of these names.
    """
    rows = tuple(
        (f"zoo:{e.name}", e.description, ", ".join(map(str, e.inputs)), e.source) for e in ZOO.values()
    )
    bundled = Table(("model", "what it is", "default input", "source"), rows)
    others = Table(("MODEL may also be", "what it is", "from"), _OTHERS)
    emit([bundled, others], _document, form, output)
    say_next(["plan", "MODEL", "--transform", "wide", "--sparsity", "0.75", "-o", "plan.json"], form, output)


def _document() -> Document:
    return with_digest(
        {
            "schema": "iftplan.models/1",
            "models": [
                {
                    "name": f"zoo:{e.name}",
                    "description": e.description,
                    "input": [str(i) for i in e.inputs],
                    "source": e.source,
                }
                for e in ZOO.values()
            ],
        }
    )
