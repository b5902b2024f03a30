"""Distillation: a run learns from a teacher's logits and features beside its labels, and pays for the teacher's passes.

logits      T²·KL(softmax(z_t/T) ‖ softmax(z_s/T)), the mean over samples (arXiv 1503.02531)
SquareHead  mean over layers of ‖f_t - f_s‖²/‖f_t‖², each over the whole batch (arXiv 2310.06927, eq. 2)
loss        (1 - weight)·labels + weight·logits + features·SquareHead
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax

from iftplan.base.documents import loads, read_text
from iftplan.base.errors import InputError
from iftplan.nn.masking.loading import load_masked_
from iftplan.nn.masking.step_masks import layer_counts, weights_by_layer, whole_weights
from iftplan.nn.masks.masked_weights import masked_weights
from iftplan.nn.training.from_checkpoint import checkpoint_at, evaluated_weights
from iftplan.nn.training.measures.evaluation import logits_of
from iftplan.nn.training.network import network_of
from iftplan.nn.warmstart.adapters import merged
from iftplan.plans.document.plan import parse_plan
from iftplan.plans.plan import Plan
from iftplan.runs.costs.training_cost import TrainingCost
from iftplan.runs.document import parse_run
from iftplan.runs.records import parse_record
from iftplan.runs.settings import DistillationConfig


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ student) of softened class probabilities, in nats, mean over rows (arXiv 1503.02531).

    Args:
        student: logits (n, classes).
        teacher: logits (n, classes).
        temperature: T, by which both are divided.
    """
    p, q = (log_softmax(z.float() / temperature, dim=-1) for z in (teacher, student))
    return temperature**2 * kl_div(q, p, reduction="batchmean", log_target=True)


def square_head(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean over layers of the squared distance of features, over the teacher's own square (arXiv 2310.06927, eq. 2).

    Args:
        student: outputs of layers.
        teacher: of the same shapes.
    """
    parts = [
        (t.float() - s.float()).square().mean() / t.float().square().mean().clamp_min(torch.finfo().tiny)
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(parts).mean()


class Teacher:
    """Trained network that a run learns from; it is evaluated in every step and never changed.

    Args:
        network: with its weights.
        config: of the run that learns.
        forward_macs: of one of its passes over a sample.
        identity: of its weights.

    Attributes:
        layers: names of modules whose outputs are compared, in both networks.
    """

    def __init__(
        self, network: nn.Module, config: DistillationConfig, forward_macs: int, identity: str
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        self.config = config
        self.forward_macs = forward_macs
        self.identity = identity
        self.layers: tuple[str, ...] = ()

    def to_(self, device: torch.device) -> Teacher:
        """Move the network to a device, in place."""
        self.network.to(device)
        return self

    @torch.no_grad()
    def check_(
        self, student: nn.Module, network: nn.Module, inputs: Tensor, candidates: Sequence[str]
    ) -> None:
        """Run one sample through both networks, and choose the layers whose features are compared.

        Args:
            student: the network of the run, as the engine wraps it.
            network: the same, bare.
            inputs: of one sample.
            candidates: names of the plan's layers; those with equal shapes are taken where the settings name none.

        Raises:
            InputError: logits or features have other shapes, or a layer is not there.
        """
        training = student.training
        student.eval()
        try:
            wanted = tuple(self.config.layers) or tuple(candidates) if self.config.features else ()
            present = [set(dict(x.named_modules())) for x in (network, self.network)]
            missing = [name for name in wanted if not all(name in names for names in present)]
            if missing and self.config.layers:
                raise InputError(
                    f"distillation.layers names {missing[0]}, which is not a module of both networks; the plan's layers are {', '.join(candidates)}."
                )
            names = tuple(name for name in wanted if name not in missing)
            with _outputs(network, names) as ours:
                mine = logits_of(student(inputs))
            with _outputs(self.network, names) as theirs:
                its = logits_of(self.network(inputs))
        finally:
            student.train(training)
        if mine.shape != its.shape:
            raise InputError(
                f"the teacher {self.config.teacher} answers with logits of shape {tuple(its.shape)} and the student with {tuple(mine.shape)}; use a teacher of the same classes."
            )
        self.layers = self._comparable(names, ours, theirs)

    def _comparable(
        self, names: Sequence[str], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> tuple[str, ...]:
        seen = [
            name
            for name in names
            if isinstance(ours.get(name), Tensor) and isinstance(theirs.get(name), Tensor)
        ]
        if unseen := [name for name in names if name not in seen and self.config.layers]:
            raise InputError(
                f"distillation.layers names {unseen[0]}, which is not called by itself in both networks, or returns more than one tensor; name others."
            )
        odd = [name for name in seen if ours[name].shape != theirs[name].shape]
        equal = tuple(name for name in seen if name not in odd)
        if self.config.features and not seen:
            raise InputError(
                f"the student and the teacher {self.config.teacher} have no layer of one name, so there are no features to compare; name modules of both with distillation.layers, or learn from logits alone: distillation.features=0."
            )
        if odd and (self.config.layers or not equal):
            name = odd[0]
            raise InputError(
                f"features of {name} have shape {tuple(ours[name].shape)} in the student and {tuple(theirs[name].shape)} in the teacher {self.config.teacher}; "
                + (
                    f"compare {', '.join(equal)} with distillation.layers."
                    if equal
                    else "no layer has equal shapes, so learn from logits alone: distillation.features=0."
                )
            )
        return equal

    def loss(
        self, inputs: Tensor, targets: Tensor, student: Callable[[Tensor], Tensor], network: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Logits of the student, and the part of the loss that the teacher gives.

        Args:
            inputs: a batch.
            targets: its labels; rows of ignored ones are left out.
            student: from inputs to logits, in training.
            network: the student's bare network, whose features are looked at.
        """
        with _outputs(network, self.layers) as ours:
            logits = student(inputs)
        with torch.no_grad(), _outputs(self.network, self.layers) as theirs:
            goal = logits_of(self.network(inputs))
        rows, goals = (x.reshape(-1, x.shape[-1]) for x in (logits, goal))
        if not targets.is_floating_point():
            counted = targets.reshape(-1) >= 0
            rows, goals = rows[counted], goals[counted]
        loss = self.config.weight * logit_loss(rows, goals, self.config.temperature)
        if self.layers:
            features = square_head([ours[x] for x in self.layers], [theirs[x] for x in self.layers])
            loss = loss + self.config.features * features
        return logits, loss


@contextmanager
def _outputs(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Outputs of modules by name, filled by the passes inside."""
    found: dict[str, Tensor] = {}
    handles = []
    for name in names:

        def keep(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            found[name] = output

        handles.append(network.get_submodule(name).register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def teacher_of(
    config: DistillationConfig, plan: Plan, source: str, say: Callable[[str], None]
) -> Teacher | None:
    """Teacher that a run's settings name; None where they name none.

    Args:
        config: of the run.
        plan: of the run.
        source: of its dense model, which may be the teacher's too.
        say: takes a sentence on each checkpoint that is refused.

    Raises:
        InputError: there is no such run, or its model is Python that nobody named.
    """
    if not config.teacher:
        return None
    given = Path(config.teacher)
    folder = given if (given / "run.json").is_file() else given.parent
    files = [folder / name for name in ("run.json", "plan.json")]
    if not all(file.is_file() for file in files):
        raise InputError(
            f"distillation.teacher is {config.teacher}, where there is no run; name the directory of a run, or a checkpoint in it."
        )
    record, planned = (loads(read_text(str(file)), str(file)) for file in files)
    run = parse_run(parse_record(record, str(files[0]))["config"], str(files[0]))
    its_plan = parse_plan(planned, str(files[1]))
    if its_plan.model != plan.model and not its_plan.model.startswith("zoo:"):
        raise InputError(
            f"the teacher {config.teacher} is of the model {its_plan.model}, and this run of {plan.model}; a teacher is of the same model, or of a bundled one."
        )
    network = network_of(run, its_plan, source if its_plan.model == plan.model else its_plan.model)
    step, state = checkpoint_at(given, say)
    weights = merged(evaluated_weights(state))
    load_masked_(network, weights)
    return Teacher(
        network, config, _forward_macs(its_plan, network, run.method.name), f"{_digest(weights)}:{step}"
    )


def _forward_macs(plan: Plan, network: nn.Module, method: str) -> int:
    """MACs of a pass over one sample, with the masks that the teacher has."""
    cost = TrainingCost.of(plan)
    if method == "dense":
        return cost.dense
    nnz = {weight.name: int(weight.mask.sum()) for weight in masked_weights(network)}
    if not nnz:
        return cost.opened
    groups = weights_by_layer(plan, network)
    return cost.forward(layer_counts(groups, {**whole_weights(network, groups), **nnz}))


def _digest(weights: Mapping[str, Tensor]) -> str:
    found = sha256()
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
