"""A whole sparse GPT against its dense baseline and against masked-dense, one thread: decoding with a cache, and a step.

    python benchmarks/wallclock_gpt.py [--model zoo:gpt-char] [--sparsities 0.75,0.9] [--batches 1,16] [--rounds 5]
    python benchmarks/wallclock_gpt.py --model zoo:gpt3-small --transform none --tokens 32 --rounds 3

Embeddings, products of attention, norms and the head are dense. Decoding is one token after --context others whose keys
and values are there already; a step is forward and backward over texts of --tokens, without an optimizer. With --profile (a
file of `iftplan bench --profile`) what `plan --objective wallclock` estimates stands beside what is measured: of layers with
weights alone. Rounds are interleaved, in processor time. A wide GPT-3 Small at 90 % takes 4 GB for each dense copy.
"""

import argparse
import copy
import os
from collections.abc import Callable
from functools import partial

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy, scaled_dot_product_attention  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.nn.execution.kernels.registers import instructions_here  # noqa: E402
from iftplan.nn.timing.interleaving import race  # noqa: E402
from iftplan.plans.plan import Pass, Plan  # noqa: E402
from iftplan.plans.speed.document import read_profile  # noqa: E402
from iftplan.plans.speed.layer_times import Times  # noqa: E402
from iftplan.plans.speed.machine import processor  # noqa: E402
from iftplan.plans.speed.pricing import Prices  # noqa: E402

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each block, (batch, heads, tokens, channels of a head)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:gpt-char", help="a bundled GPT")
    parser.add_argument("--transform", default="wide", choices=["wide", "none"])
    parser.add_argument("--sparsities", default="0.75,0.9")
    parser.add_argument("--structure", default="unstructured")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--context", type=int, default=64, help="tokens in the cache")
    parser.add_argument("--tokens", type=int, default=64, help="of each text of a step; 0 for no step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="", help="file of iftplan bench --profile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.model} on {processor()}, {instructions_here()}, one thread; ratios to dense", flush=True)
    dense = without_dropout(ift_nn.build(given.model, device="cpu"))
    for sparsity in given.sparsities.split(","):
        masked, compact = None, None  # the last ones' memory
        plan = planned(given, sparsity, given.tokens or 1)
        masked = ift_nn.apply(plan, dense)
        compact = ift_nn.compact_(copy.deepcopy(masked))
        networks = {"dense": dense, "masked-dense": masked, "compact": compact}
        for batch in map(int, given.batches.split(",")):
            decoding(networks, given, sparsity, batch)
        if given.tokens:
            stepping(networks, given, sparsity)


def planned(given: argparse.Namespace, sparsity: str, tokens: int) -> Plan:
    spec = ift.read_model(given.model, f"1x{tokens}:int64")
    return ift.plan(spec, given.transform, sparsity, mask=given.structure)


def without_dropout(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def decoding(networks: dict[str, nn.Module], given: argparse.Namespace, sparsity: str, batch: int) -> None:
    """One token for each of several texts."""
    texts = torch.randint(0, 256, (batch, given.context + 1), generator=torch.Generator().manual_seed(0))
    work, outputs = dict[str, Callable[[], object]](), dict[str, Tensor]()
    with torch.no_grad():
        for name, net in networks.items():
            net.eval()
            _, cache = advance(net, texts[:, :-1], [])
            work[name] = partial(step_of_decoding, net, texts[:, -1:], cache)
            outputs[name] = advance(net, texts[:, -1:], cache)[0][:, -1]
        whole = networks["compact"](texts).logits[:, -1]
    estimate = estimated(given, sparsity, "forward", tokens=1, batch=batch)
    show(f"decoding, batch {batch:2}", sparsity, work, given.rounds, estimate)
    apart(outputs["compact"], outputs["masked-dense"], "compact from masked-dense")
    apart(outputs["compact"], whole, "with a cache from without")


@torch.no_grad()
def step_of_decoding(net: nn.Module, tokens: Tensor, cache: Cache) -> None:
    advance(net, tokens, cache)


def advance(net: nn.Module, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    """Logits of the tokens that come after those in the cache, and the cache with them."""
    body = net.transformer
    before = cache[0][0].shape[2] if cache else 0
    positions = torch.arange(before, before + tokens.shape[1]).unsqueeze(0)
    x, longer = body.wte(tokens) + body.wpe(positions), Cache()
    for number, block in enumerate(body.h):
        attention = block.attn
        parts = attention.c_attn(block.ln_1(x)).split(attention.split_size, dim=2)
        query, key, value = (
            part.view(*part.shape[:-1], -1, attention.head_dim).transpose(1, 2) for part in parts
        )
        if cache:
            key, value = (
                torch.cat([old, new], 2) for old, new in zip(cache[number], (key, value), strict=True)
            )
        longer.append((key, value))
        mixed = scaled_dot_product_attention(query, key, value, is_causal=not cache, scale=attention.scaling)
        x = attention.c_proj(mixed.transpose(1, 2).flatten(2)) + x
        x = x + block.mlp(block.ln_2(x))
    return net.lm_head(body.ln_f(x)), longer


def stepping(networks: dict[str, nn.Module], given: argparse.Namespace, sparsity: str) -> None:
    """Forward and backward over a text."""
    texts = torch.randint(0, 256, (1, given.tokens + 1), generator=torch.Generator().manual_seed(1))
    work = {name: partial(train, net.train(), texts) for name, net in networks.items()}
    sparse = ift_nn.execute_sparse_(networks["masked-dense"])
    losses = [train(networks["compact"], texts), train(sparse, texts)]
    ift_nn.execute_dense_(sparse)
    estimate = estimated(given, sparsity, "step", tokens=given.tokens, batch=1)
    show(f"step of {given.tokens} tokens", sparsity, work, given.rounds, estimate)
    print(f"    losses of compact and sparse execution: {losses[0]:.6f}, {losses[1]:.6f}", flush=True)


def train(net: nn.Module, texts: Tensor) -> float:
    logits = net(texts[:, :-1]).logits
    loss = cross_entropy(logits.flatten(0, 1), texts[:, 1:].flatten())
    loss.backward()
    net.zero_grad()
    return float(loss.detach())


def estimated(
    given: argparse.Namespace, sparsity: str, passes: Pass, *, tokens: int, batch: int
) -> float | None:
    """Estimated seconds of the planned layers over those of the dense ones, from the profile."""
    if not given.profile:
        return None
    times = Times.of(planned(given, sparsity, tokens), Prices.of(read_profile(given.profile), passes, batch))
    return times.seconds / sum(time.dense.seconds for time in times.layers.values())


def show(
    what: str, sparsity: str, work: dict[str, Callable[[], object]], rounds: int, estimate: float | None
) -> None:
    found = race(work, dict.fromkeys(work, 0), {}, rounds, 1, {})
    told = [f"{one.backend} {one.seconds * 1e3:.1f} ms ({one.ratio:.2f})" for one in found]
    told += [f"estimated {estimate:.2f}"] if estimate else []
    print(f"  {sparsity}, {what}: {', '.join(told)}", flush=True)


def apart(one: Tensor, other: Tensor, what: str) -> None:
    print(f"    {what}: {float((one - other).abs().max() / other.abs().max()):.1e} apart", flush=True)


if __name__ == "__main__":
    main()
