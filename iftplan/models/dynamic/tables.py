"""Activity of networks for people."""

from __future__ import annotations

from iftplan.base.units import count, share
from iftplan.models.counting import unknown_sentence
from iftplan.models.dynamic.activations import ActivationSparsity
from iftplan.models.dynamic.dormant import DormantNeurons
from iftplan.report.table import Table


def activation_table(found: ActivationSparsity) -> Table:
    """Layer by layer: how many activations are not zero, and the MACs that this leaves, over all of the data."""
    selected = any(layer.cett is not None for layer in found.layers)
    rows = []
    for layer in found.layers:
        cells = [
            layer.name or layer.weight,
            share(layer.activation_ratio),
            count(layer.macs),
            count(layer.effective_macs),
        ]
        if selected:
            cells.append("" if layer.cett is None else f"{layer.cett:.4f}")
        rows.append(tuple(cells))
    columns = ("layer", ">non-zero inputs", ">static MACs", ">effective MACs")
    part, total = found.effective_share, found.effective_macs
    notes = [
        f"{count(total)} of {count(found.macs)} MACs are effective, {share(part)}"
        if part is not None and total is not None
        else "the effective MACs are not known"
    ]
    if found.loss is not None:
        notes.append(f"loss {found.loss:.4f} nats")
    if found.unobserved:
        notes.append(unobserved_sentence(found))
    notes += [unknown_sentence(name, calls) for name, calls in found.unknown.items()]
    title = f"Activations on {count(found.samples)} samples, selection {found.selection}"
    return Table((*columns, ">CETT") if selected else columns, tuple(rows), title, tuple(notes))


def unobserved_sentence(found: ActivationSparsity) -> str:
    """Sentence about products whose zeros were not counted."""
    whole = sum(found.unobserved.values())
    return f"{count(whole)} MACs of {len(found.unobserved)} products were not looked into (of two activations, or of an operator without a rule) and count in full."


def dormant_table(found: DormantNeurons) -> Table:
    """Layer by layer: how many neurons are dormant."""
    rows = tuple(
        (
            layer.name,
            ", ".join(layer.readers),
            count(len(layer.scores)),
            count(len(layer.dormant)),
            share(layer.share),
            f"{min(layer.scores):.4f}",
        )
        for layer in found.layers
    )
    notes = [
        "no layer has neurons that it alone writes"
        if found.share is None
        else f"{count(found.dormant)} of {count(found.neurons)} neurons are dormant, {share(found.share)}"
    ]
    if found.unobserved:
        notes.append(
            f"{count(len(found.unobserved))} other layers have no neurons of their own: they are added to others, mixed, or the "
            "network's outputs"
        )
    title = f"Dormant neurons on {count(found.samples)} samples, threshold {found.threshold:g}"
    columns = ("layer", "read by", ">neurons", ">dormant", ">share", ">lowest score")
    return Table(columns, rows, title, tuple(notes))
