"""The benchmark of a whole GPT: tokens that meet a cache get the logits that they get in a whole text."""

from __future__ import annotations

import torch

from iftplan import nn as inn
from tests.support.programs import program

gpt = program("wallclock_gpt")


@torch.no_grad()
def test_decoding_with_a_cache_is_the_forward_pass() -> None:
    torch.manual_seed(0)
    net = inn.build("zoo:gpt-char", device="cpu").eval()
    texts = torch.randint(256, (2, 12), generator=torch.Generator().manual_seed(0))
    whole = net(texts).logits
    first, cache = gpt.advance(net, texts[:, :8], [])
    torch.testing.assert_close(first, whole[:, :8])
    for at in range(8, 12):
        logits, cache = gpt.advance(net, texts[:, at : at + 1], cache)
        torch.testing.assert_close(logits[:, 0], whole[:, at])
    assert all(key.shape == value.shape == (2, 4, 12, 32) for key, value in cache)
