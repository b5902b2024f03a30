"""Bytes of devices by hand; `tests/nn/masking/test_sharded_masks.py` holds them against what processes have and send."""

from __future__ import annotations

import pytest

import iftplan as ift
from iftplan.plans.plan import Plan
from iftplan.runs.devices.layout import Devices, Split, splits
from iftplan.runs.devices.memory import device_memory, rounds_of
from iftplan.runs.devices.tables import DeviceRequest, parse_memory
from tests.support.hand_specs import chain


@pytest.fixture(scope="module")
def gpt() -> Plan:
    """Four blocks of width 128, no width moved: embeddings of 256 and 128 rows, the first tied to the head."""
    return ift.plan("zoo:gpt-char", None, "3/4", keep_dense=())


BLOCK = 128 * 384 + 128 * 128 + 2 * 128 * 512
WEIGHTS = 4 * BLOCK + (256 + 128) * 128
TOGETHER = 4 * (128 * 384 + 128 * 128) + (256 + 128) * 128
"""Weights of layers below 65,536 and of those that are tied; the layers of the MLP have as many."""
TOKENS = 128


def test_parts_are_equal_shares_of_all_weights(gpt: Plan) -> None:
    memory = device_memory(gpt, Devices(8))
    assert memory.weights == memory.gradients == WEIGHTS * 4 // 8
    assert memory.optimizer == 2 * memory.weights
    assert memory.masks == 3 * 4 * BLOCK // 8
    assert memory.factors == 4 * 4 * BLOCK // 8
    assert memory.gathered == (TOGETHER + 128 * 512) * 4
    assert memory.held == sum((2 * memory.weights, memory.optimizer, memory.masks, memory.factors))


def test_tensor_parallelism_leaves_embeddings_whole(gpt: Plan) -> None:
    memory = device_memory(gpt, Devices(4, tensor=4), optimizer="sgd")
    assert memory.weights == memory.optimizer == (4 * BLOCK // 4 + (256 + 128) * 128) * 4
    assert (memory.gathered, memory.parts_sent, memory.replicas_sent) == (0, 0, 0)


def test_a_step_sends_what_collectives_do(gpt: Plan) -> None:
    """Over parts, gathering large layers twice and others once, and scattering once; over replicas, a ring twice around."""
    memory = device_memory(gpt, Devices(8, replicas=2))
    assert memory.parts_sent == (3 * WEIGHTS - TOGETHER) * 4 * 3 // 4
    assert memory.replicas_sent == 2 * (WEIGHTS // 4 * 4) // 2


def test_a_step_is_fullest_at_one_of_three_moments(gpt: Plan) -> None:
    """All inputs are kept at the end of the forward pass; at the end of all, gradients of small layers are there twice."""
    together, layer = TOGETHER * 4, 128 * 512 * 4
    memory = device_memory(gpt, Devices(8), batch=4)
    assert memory.step == together + memory.activations
    recomputed = device_memory(gpt, Devices(8), recompute=True)
    assert recomputed.step == 2 * together + 8 * layer // 8
    assert recomputed.peak == recomputed.held - recomputed.gradients + recomputed.step
    whole = device_memory(gpt, Devices(4, tensor=4), recompute=True)
    assert whole.step == whole.gradients
    assert whole.peak == whole.held + whole.update
    head = device_memory(ift.plan(chain(classes=2**16), None, "1/2"), Devices(8), recompute=True)
    small = 16 * (3 * 9 + 16 * 9 + 9) + 24 * 16 * 9
    assert head.step == (small + 2 * 24 * 2**16) * 4  # weight and gradient of one large layer


def test_split_layers_send_what_they_compute(gpt: Plan) -> None:
    """Of each block: inputs' gradients of three layers summed, outputs of two gathered, those of the last summed."""
    memory = device_memory(gpt, Devices(2, tensor=2), batch=3)
    inputs, outputs, rows = 3 * 128, 384 + 128, 128
    numbers = 4 * (2 * inputs + outputs + 2 * rows)
    assert memory.tensor_sent == 3 * TOKENS * numbers * 4 // 2


def test_which_layers_are_split_and_how(gpt: Plan) -> None:
    found = splits(gpt, 2)
    assert len(found) == 16
    assert found["transformer.h.0.attn.c_attn"] == Split()
    assert found["transformer.h.0.mlp.c_fc"] == Split(gathered=False)
    assert found["transformer.h.0.mlp.c_proj"] == Split(rows=True)
    assert splits(gpt, 1) == {}
    assert "transformer.h.0.attn.c_attn" not in splits(gpt, 5)


def test_an_update_sends_counts_alone(gpt: Plan) -> None:
    """Two selections of three rounds of 2048 counts for each of 16 layers; with ties as many rounds as indices need."""
    counts = 2048 * 8 * 2 * 7 // 8  # added up among eight: all but an eighth goes around, twice
    least, most = device_memory(gpt, Devices(8)).update_sent
    assert least == 16 * 2 * 3 * counts
    assert most - least == 4 * (2 + 2 + 2 + 2) * 2 * counts  # indices below 2¹⁷: two rounds
    both = device_memory(gpt, Devices(8, tensor=2)).update_sent
    assert both[0] == 16 * 2 * 3 * 2048 * 8 * 2 * (3 + 2) // 4  # among four parts, and among two


@pytest.mark.parametrize(("bits", "rounds"), [(1, 1), (11, 1), (12, 2), (22, 2), (32, 3), (63, 6)])
def test_rounds(bits: int, rounds: int) -> None:
    assert rounds_of(bits) == rounds


def test_recomputation_keeps_one_layer_s_inputs(gpt: Plan) -> None:
    kept = device_memory(gpt, Devices(2)).activations
    assert kept == TOKENS * 4 * (4 * (3 * 128 + 512) + 128)
    assert device_memory(gpt, Devices(2), recompute=True).activations == TOKENS * 4 * 512


def test_a_verdict_says_what_is_left_or_missing(gpt: Plan) -> None:
    def verdict(most: int) -> str:
        held, _ = DeviceRequest.of(Devices(8), most, 16).tables(gpt)
        return held.notes[-1]

    peak = device_memory(gpt, Devices(8), batch=2).peak
    assert verdict(peak).startswith("fits as far as known: 0.000 of ")
    assert verdict(peak - 1).startswith("does not fit: ")


def test_sizes_of_memory() -> None:
    assert parse_memory("80G") == 80 * 2**30
    assert parse_memory("1.5 KiB") == 1536
    for text in ("80", "eighty", "0G", "-1G"):
        with pytest.raises(ift.InputError, match="write it as 80G"):
            parse_memory(text)


def test_devices_have_to_divide() -> None:
    with pytest.raises(ift.InputError, match="use a multiple of 4 devices"):
        Devices(6, tensor=2, replicas=2)
    with pytest.raises(ift.InputError, match="use a multiple of 8"):
        DeviceRequest.of(Devices(8), None, 12)
