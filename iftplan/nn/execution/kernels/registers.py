"""Registers of the machine: how many values one holds, and how many of them a kernel keeps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from iftplan.base.errors import InputError

ROWS: Final = 4
"""Output rows that a kernel works on at a time; four of them use the registers of every instruction set."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The shape of a kernel.

    Attributes:
        lanes: values in one register.
        count: registers side by side; a tile is `lanes * count` columns wide.
        bits: of a value, 32 or 64.
        shuffled: whether four weights are loaded together and spread by shuffles, instead of one load for each.
    """

    lanes: int
    count: int
    bits: int = 32
    shuffled: bool = True

    @property
    def bytes(self) -> int:
        """Bytes of one register."""
        return self.lanes * self.bits // 8

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a tile."""
        return self.count * self.bytes

    def block(self, wide: int) -> int:
        """Channels whose vectors, `wide` of each, stay in the first-level cache together.

        40 KB of AVX-512's 48, 20 of the others' 32.
        """
        return max(1, (40_960 if self.lanes * self.bits == 512 else 20_480) // (wide * self.bytes))


_BY_NAME: Final = {"avx512": (512, 4), "avx2": (256, 2), "portable": (128, 2)}


def vectors_of(instructions: str, bits: int = 32) -> Vectors:
    """The kernel shape for a set of instructions.

    Args:
        instructions: "avx512", "avx2" or "portable" (128 bits, whatever the machine calls them).
        bits: of a value.

    Raises:
        InputError: there is no such set.
    """
    if instructions not in _BY_NAME:
        raise InputError(
            f"unknown instructions {instructions!r}; kernels are made for {', '.join(_BY_NAME)}."
        )
    width, count = _BY_NAME[instructions]
    return Vectors(
        width // bits, count, bits, bits == 32 and (width == 256 or (width == 512 and _loads_are_dear()))
    )


@lru_cache(maxsize=1)
def _loads_are_dear() -> bool:
    """Whether a processor with AVX-512 has a shuffle to spare sooner than a load.

    AMD's has; on Intel's, one of the two units that multiply shuffles too, and scalars are loaded beside vectors.
    """
    try:
        from llvmlite import binding
    except ImportError:
        return True
    return bool(binding.get_host_cpu_name().startswith("znver"))


def instructions_here() -> str:
    """The widest set that this machine's processor has.

    Raises:
        InputError: numba is missing.
    """
    require_numba()
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return "avx512"
    return "avx2" if features.get("avx2") and features.get("fma") else "portable"


def require_numba() -> None:
    """Refuse in one sentence where the kernels' compiler is missing.

    Raises:
        InputError: it is.
    """
    try:
        import numba  # noqa: F401
    except ImportError as error:
        raise InputError(
            "sparse execution compiles its kernels with numba, which is not installed; install it with: pip install 'iftplan[bench]'."
        ) from error
