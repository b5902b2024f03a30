"""What published configurations cost, counted here: plans of our own models, recipes' epochs, methods' rules.

Each is planned in the scope that its paper closes. In vision that is all layers: the first and last stay dense, and the
rest pays for what they grow by (arXiv 2303.11525, appendix B.2). In detection and segmentation it is the backbone, which
was trained as a classifier (section 3.5). In language it is the transformed matrices. The MACs are of the whole model, so
that what is outside of the scope and grows, the head of a language model or the neck of a detector, is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final

from iftplan.families.builtin import family_named
from iftplan.families.solver import mask_for
from iftplan.masks import parse_mask
from iftplan.models.spec import ModelSpec
from iftplan.plans.plan import Plan, Rounding, Scope, scope_text
from iftplan.plans.planner import plan
from iftplan.plans.policy import Policy
from iftplan.runs.costs.training_cost import TrainingCost, rigl_average
from iftplan.runs.document import parse_run, read_recipe
from iftplan.runs.results.observations import Observation
from iftplan.runs.results.published.results import PublishedResult
from iftplan.runs.settings import RunConfig


@dataclass(frozen=True, slots=True)
class Setting:
    """Model and recipe of ours that a published model corresponds to.

    Attributes:
        model: a model of the zoo that is the same network.
        recipe: the bundled recipe with the paper's epochs and switches; empty where their length is not known.
        samples: of one epoch.
        scope: whose MACs the paper holds equal.
        within: the module that alone is transformed; empty for the whole model.
    """

    model: str
    recipe: str = ""
    samples: int = 0
    scope: Scope = Scope.LAYERS
    within: str = ""

    @property
    def scope_name(self) -> str:
        """Name of the scope, with the module that it is of."""
        return scope_text(self.scope, self.within)


_CIFAR, _IMAGENET = 50_000, 1_281_167

SETTINGS: Mapping[tuple[str, str], Setting] = MappingProxyType(
    {
        ("CIFAR-100", "ResNet-18"): Setting("zoo:resnet18-cifar", "cifar100-resnet18", _CIFAR),
        ("CIFAR-100", "MobileNetV2"): Setting("zoo:mobilenetv2-cifar", "cifar100-mobilenetv2", _CIFAR),
        ("CIFAR-100", "MobileViT-S"): Setting("zoo:mobilevit-s-cifar", "cifar100-mobilevit-s", _CIFAR),
        ("CIFAR-100", "BotNet-50"): Setting("zoo:botnet50-cifar", "cifar100-botnet50", _CIFAR),
        ("ImageNet", "ResNet-18"): Setting("zoo:resnet18", "imagenet-resnet18", _IMAGENET),
        ("ImageNet", "ResNet-34"): Setting("zoo:resnet34", "imagenet-resnet34", _IMAGENET),
        ("ImageNet", "BotNet-50"): Setting("zoo:botnet50", "imagenet-botnet50", _IMAGENET),
        ("COCO", "RetinaNet-R18"): Setting("zoo:retinanet-r18", scope=Scope.MODULE, within="backbone"),
        ("Cityscapes", "DeepLabV3+-R18"): Setting(
            "zoo:deeplabv3plus-r18", scope=Scope.MODULE, within="backbone"
        ),
        ("WikiText-103", "GPT-3 Small"): Setting("zoo:gpt3-small", scope=Scope.MATRICES),
        ("WikiText-103", "GPT-3 Small (Pile)"): Setting("zoo:gpt3-small-2048", scope=Scope.MATRICES),
        ("WikiText-103", "GPT-3 Medium"): Setting("zoo:gpt3-medium", scope=Scope.MATRICES),
    }
)
"""Published models whose network is in the zoo; of the others nothing is counted."""

DENSE_FINETUNE: Final = "dense-finetune"
"""Method of published rows that were trained sparse and then fine-tuned with every weight."""


def published_observations(
    results: Sequence[PublishedResult], read: Callable[[str], ModelSpec]
) -> tuple[Observation, ...]:
    """Published results with the MACs of our own models; without MACs where the network is not in the zoo.

    Args:
        results: from `published_results`.
        read: a source to its spec, with widths (`iftplan.nn.reading.read.read_model`); called once for each model.
    """
    named = dict.fromkeys(s.model for r in results if (s := SETTINGS.get((r.task, r.model))))
    specs = {model: read(model) for model in named}
    return tuple(_observation(result, specs) for result in results)


def _observation(result: PublishedResult, specs: Mapping[str, ModelSpec]) -> Observation:
    bare = Observation(
        source=result.cited,
        model=result.model,
        transform=result.transform,
        nonlinear=result.nonlinear,
        sparsity=float(result.sparsity),
        structure=result.mask,
        method=result.method,
        task=result.task,
        metric=result.metric,
        value=result.value,
        error=result.std,
        published=True,
    )
    setting = SETTINGS.get((result.task, result.model))
    if setting is None:
        return bare
    from dataclasses import replace

    planned = planned_result(result, specs[setting.model], setting)
    cardinality = planned.cardinality
    masked = [layer for layer in planned.layers if layer.maskable]
    filled = result.method == DENSE_FINETUNE  # it computes with every weight
    more = sum((layer.capacity - layer.nnz) * layer.positions for layer in masked) if filled else 0
    return replace(
        bare,
        scope=setting.scope_name,
        macs=planned.macs(Scope.MODEL) + more,
        dense_macs=planned.dense_macs(Scope.MODEL),
        train_macs=training_macs(planned, result.method, setting),
        nnz=sum(layer.capacity if filled else layer.nnz for layer in masked),
        maskable_weights=cardinality.maskable_weights,
        log2_masks=cardinality.log2_masks,
    )


def planned_result(
    result: PublishedResult, spec: ModelSpec, setting: Setting, rounding: Rounding = "cover"
) -> Plan:
    """Plan of the network that a published result is of, closed to the MAC.

    Args:
        result: a row of a paper's table.
        spec: of its dense model.
        setting: says whose MACs the paper holds equal.
        rounding: of widths: "cover" rounds up, "floor" down, as the paper's code does.
    """
    family = family_named("wide" if result.transform == "dense" else result.transform)
    mask = mask_for(family, result.sparsity, parse_mask(result.mask) if result.mask else None)
    policy = Policy(
        family=family,
        sparsity=result.sparsity,
        scope=setting.scope,
        within=setting.within,
        mask=mask,
        rounding=rounding,
    )
    return plan(spec, policy)


def training_macs(planned: Plan, method: str, setting: Setting) -> int | None:
    """MACs of a whole training by the method's own rule; None where the rule or the length is not known.

    Args:
        planned: the network.
        method: as the paper calls it.
        setting: the recipe and the samples of an epoch.
    """
    if not setting.recipe:
        return None
    run = parse_run(read_recipe(setting.recipe), setting.recipe)
    a_step = _step(TrainingCost.of(planned), method, run)
    return None if a_step is None else round(a_step * run.training.epochs * setting.samples)


def _step(cost: TrainingCost, method: str, run: RunConfig) -> Fraction | None:
    """A sample's training step, averaged over the run."""
    match method:
        case "dense" | "static" | "set":
            return Fraction(cost.step())
        case "rigl":
            end = Fraction(str(run.method.end))
            updating = rigl_average(Fraction(cost.forward()), Fraction(cost.opened), run.method.interval)
            return end * updating + (1 - end) * cost.step()
        case "transposable-nm":  # straight-through: the weight gradient is dense
            return Fraction(cost.step(dense_gradient=True))
    return None
