"""What devices hold and send, for people."""

from __future__ import annotations

from iftplan.base.units import count
from iftplan.plans.devices.layout import Devices
from iftplan.plans.devices.memory import DeviceMemory
from iftplan.report.table import Table


def device_tables(memory: DeviceMemory, devices: Devices, *, most: int | None, batch: int) -> tuple[Table, Table]:
    """Tables of the memory of each device, and of what it sends.

    Args:
        memory: of each.
        devices: and how they are arranged.
        most: bytes that each has; None where that was not said.
        batch: samples of a step in each group that sees samples of its own.
    """
    held = (
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer state", memory.optimizer),
        ("masks", memory.masks),
        ("masks as factors", memory.factors),
        ("held between steps", memory.held),
        ("a gathered layer, in a step", memory.gathered),
        ("inputs of layers, in a step", memory.activations),
        ("scores, in a mask update", memory.update),
        ("peak, as far as known", memory.peak),
    )
    sent = (
        ("a step: FSDP", memory.parts_sent),
        ("a step: replicas", memory.replicas_sent),
        ("a step: tensor parallelism", memory.tensor_sent),
        ("a step", memory.sent),
        ("a mask update, at least", memory.update_sent[0]),
        ("a mask update, at most", memory.update_sent[1]),
    )
    arranged = f"{devices.count} devices: {devices.replicas} replica(s) × {devices.parts} parts × {devices.tensor} tensor-parallel; {count(batch)} sample(s) a step in each of {devices.data} group(s)"
    notes = [
        arranged,
        "not counted: biases and norms, and what attention, norms and activation functions keep for the backward pass",
        *(() if most is None else (_verdict(memory, most),)),
    ]
    return (
        Table(("memory of each device", ">bytes", ">GiB"), tuple((n, count(b), gib(b)) for n, b in held), notes=tuple(notes)),
        Table(("sent by each device", ">bytes", ">GiB"), tuple((n, count(b), gib(b)) for n, b in sent)),
    )


def gib(size: int) -> str:
    """A size in GiB, to three places."""
    return f"{size / 2**30:.3f}"


def _verdict(memory: DeviceMemory, most: int) -> str:
    if memory.peak > most:
        return f"does not fit: {gib(memory.peak)} GiB are needed at least, and each device has {gib(most)}"
    return f"fits as far as known: {gib(most - memory.peak)} of {gib(most)} GiB are left for what is not counted"
