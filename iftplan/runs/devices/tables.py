"""What devices hold and send, for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from iftplan.base.errors import InputError
from iftplan.base.units import count
from iftplan.plans.plan import Plan
from iftplan.report.table import Table
from iftplan.runs.devices.layout import Devices
from iftplan.runs.devices.memory import DeviceMemory, device_memory

_SIZE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*([KMGT])(?:i?B)?", re.I)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """Devices on which a plan is to be trained.

    Attributes:
        devices: and how they are arranged.
        most: bytes that each has; None where that is not known.
        batch: samples of a step in each group that sees samples of its own.
    """

    devices: Devices
    most: int | None = None
    batch: int = 1

    @classmethod
    def of(cls, devices: Devices, most: int | None, batch: int | None) -> Self:
        """Request with a batch over all devices; one sample for each group where none is given.

        Args:
            devices: and how they are arranged.
            most: bytes that each has.
            batch: samples of a step on all devices.

        Raises:
            InputError: the batch does not divide among the groups.
        """
        if batch is not None and batch % devices.data:
            raise InputError(
                f"a batch of {batch} cannot be divided among {devices.data} groups of devices; use a multiple of {devices.data}."
            )
        return cls(devices, most, 1 if batch is None else batch // devices.data)

    def tables(self, plan: Plan) -> tuple[Table, Table]:
        """Tables of the memory of each device, and of what it sends."""
        memory = device_memory(plan, self.devices, batch=self.batch)
        return _held(memory, self), _sent(memory)


def _held(memory: DeviceMemory, asked: DeviceRequest) -> Table:
    devices = asked.devices
    rows = (
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer state (Adam)", memory.optimizer),
        ("masks", memory.masks),
        ("masks as factors of gradients", memory.factors),
        ("held after a backward pass", memory.held),
        ("gathered layers, in a step", memory.gathered),
        ("inputs of layers, in a step", memory.activations),
        ("scores, in a mask update", memory.update),
        ("peak, as far as known", memory.peak),
    )
    notes = (
        f"{count(devices.count)} devices: {devices.replicas} replica(s) × {devices.parts} parts × {devices.tensor} tensor-parallel, {count(asked.batch)} sample(s) a step for each of {devices.data} group(s)",
        "not counted: biases and norms, and what attention, norms and activation functions keep for the backward pass",
        *(() if asked.most is None else (_verdict(memory, asked.most),)),
    )
    return _bytes("memory of each device", rows, notes)


def _sent(memory: DeviceMemory) -> Table:
    rows = (
        ("a step: parts", memory.parts_sent),
        ("a step: replicas", memory.replicas_sent),
        ("a step: tensor parallelism", memory.tensor_sent),
        ("a step, all", memory.sent),
        ("a mask update, at least", memory.update_sent[0]),
        ("a mask update, at most", memory.update_sent[1]),
    )
    return _bytes("sent by each device", rows)


def _bytes(what: str, rows: tuple[tuple[str, int], ...], notes: tuple[str, ...] = ()) -> Table:
    return Table((what, ">bytes", ">GiB"), tuple((name, count(n), gib(n)) for name, n in rows), notes=notes)


def parse_memory(text: str) -> int:
    """Read a size of memory such as `80G`, `640MiB` or `1.5T`, in powers of 1024; bytes.

    Raises:
        InputError: not a size.

    Example:
        >>> parse_memory("80G"), parse_memory("1.5 KiB")
        (85899345920, 1536)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or not (size := Fraction(found[1]) * 1024 ** ("KMGT".index(found[2].upper()) + 1)):
        raise InputError(
            f"memory {text[:60]!r} is not a size; write it as 80G, 640M or 1.5T (GiB, MiB, TiB)."
        )
    return int(size)


def gib(size: int) -> str:
    """A size in GiB, to three places."""
    return f"{size / 2**30:.3f}"


def _verdict(memory: DeviceMemory, most: int) -> str:
    if memory.peak > most:
        return f"does not fit: {gib(memory.peak)} GiB are needed at least, and each device has {gib(most)}"
    return (
        f"fits as far as known: {gib(most - memory.peak)} of {gib(most)} GiB are left for what is not counted"
    )
