"""A whole sparse GPT against its dense baseline and against masked-dense, one thread: decoding with a cache, and a step.

    python benchmarks/speed/wallclock_gpt.py [--model zoo:gpt-char] [--sparsities 0.75,0.9] [--batches 1,16] [--rounds 5]
    python benchmarks/speed/wallclock_gpt.py --model zoo:gpt3-small --sparsities 0.9 --tokens 0 --networks dense,sparse,sparse-int8
    python benchmarks/speed/wallclock_gpt.py --model zoo:gpt3-small --sparsities 0.9 --batches '' --networks dense,compact

Embeddings, products of attention, norms and the head are dense, and in a wide network as wide as it is: what the blocks take
without embedding and head stands beside what the whole network takes. Decoding is one token after --context others whose keys
and values are there already, by weights frozen for inference (in float32, bfloat16 and int8) and by compact ones; a step is
forward and backward over texts of --tokens, without an optimizer. With --profile (a file of `iftplan bench --profile`) what
`plan --objective wallclock` estimates stands beside what is measured: of layers with weights alone. Rounds are interleaved,
in processor time. A wide GPT-3 Small at 90 % has 850 M weights in its blocks: leave masked-dense out where 20 GB are not free (12 GB without).
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
from iftplan.nn.execution.frozen import freeze  # noqa: E402
from iftplan.nn.execution.kernels.registers import instructions_here  # noqa: E402
from iftplan.nn.execution.layers import SparseLayer  # noqa: E402
from iftplan.nn.timing.interleaving import race  # noqa: E402
from iftplan.plans.plan import Pass, Plan  # noqa: E402
from iftplan.plans.speed.document import read_profile  # noqa: E402
from iftplan.plans.speed.layer_times import Times  # noqa: E402
from iftplan.plans.speed.machine import processor  # noqa: E402
from iftplan.plans.speed.pricing import Prices  # noqa: E402

FROZEN = ("sparse", "sparse-bfloat16", "sparse-int8")
NETWORKS = ("dense", "bfloat16", "masked-dense", "compact", *FROZEN)
"""The dense baseline in both types, and the sparse network as it is computed; in steps, those that train."""

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values of each block, (batch, heads, tokens, channels of a head)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zoo:gpt-char", help="a bundled GPT")
    parser.add_argument("--transform", default="wide", choices=["wide", "none"])
    parser.add_argument("--scope", default="matrices", help="whose MACs are those of the dense model")
    parser.add_argument("--sparsities", default="0.75,0.9")
    parser.add_argument("--structure", default="unstructured")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--context", type=int, default=64, help="tokens in the cache")
    parser.add_argument("--tokens", type=int, default=64, help="of each text of a step; 0 for no step")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="", help="file of iftplan bench --profile")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{given.model} on {processor()}, {instructions_here()}, one thread; ratios to dense", flush=True)
    dense = without_dropout(ift_nn.build(given.model, device="cpu"))
    for sparsity in given.sparsities.split(","):
        networks = dict[str, nn.Module]()  # the last ones' memory
        networks = variants(ift_nn.apply(planned(given, sparsity, given.tokens or 1), dense), dense, given)
        for batch in map(int, filter(None, given.batches.split(","))):
            decoding(networks, given, sparsity, batch)
        if given.tokens:
            stepping({name: net for name, net in networks.items() if trains(name)}, given, sparsity)


def trains(name: str) -> bool:
    return name not in ("bfloat16", *FROZEN)


def variants(masked: nn.Module, dense: nn.Module, given: argparse.Namespace) -> dict[str, nn.Module]:
    """The networks that are asked for, which share what does not differ."""
    wanted, found = given.networks.split(","), {"dense": dense}
    if "bfloat16" in wanted:
        found["bfloat16"] = copy.deepcopy(dense).bfloat16()
    if "compact" in wanted:
        found["compact"] = ift_nn.compact_(sharing(masked))
    if any(name in wanted for name in FROZEN):
        base = ift_nn.execute_sparse_(sharing(masked), frozen=True)
        for name in FROZEN:
            if name in wanted:
                found[name] = rounded(base, name.partition("-")[2] or None)
    if "masked-dense" in wanted:
        found["masked-dense"] = masked
    else:
        for layer in masked.modules():
            if "weight_mask" in layer._buffers:  # what is frozen or compact does not look at its weight again
                layer.weight.data = torch.zeros(()).expand(layer.weight.shape)
    return {name: found[name] for name in NETWORKS if name in found}


def sharing(net: nn.Module) -> nn.Module:
    """A copy of modules, with the same tensors."""
    return copy.deepcopy(net, {id(t): t for t in (*net.parameters(), *net.buffers())})


def rounded(base: nn.Module, kind: str | None) -> nn.Module:
    net = sharing(base)
    for layer, like in zip(net.modules(), base.modules(), strict=True):
        if isinstance(layer, SparseLayer):
            layer.frozen = freeze(like.frozen.pattern, like.frozen.values, kind)
    return net


def planned(given: argparse.Namespace, sparsity: str, tokens: int) -> Plan:
    spec = ift.read_model(given.model, f"1x{tokens}:int64")
    return ift.plan(spec, given.transform, sparsity, mask=given.structure, scope=given.scope)


def without_dropout(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


@torch.no_grad()
def decoding(networks: dict[str, nn.Module], given: argparse.Namespace, sparsity: str, batch: int) -> None:
    """One token for each of several texts."""
    texts = torch.randint(0, 256, (batch, given.context + 1), generator=torch.Generator().manual_seed(0))
    whole, inner, outputs = dict[str, Callable[[], object]](), dict[str, Callable[[], object]](), {}
    for name, net in networks.items():
        cache = advance(net.eval(), texts[:, :-1], [])[1]
        whole[name] = partial(step_of_decoding, advance, net, texts[:, -1:], cache)
        inner[name] = partial(
            step_of_decoding, through_blocks, net, embedded(net, texts[:, -1:], cache), cache
        )
        outputs[name] = advance(net, texts[:, -1:], cache)[0][:, -1].float()
    estimate = estimated(given, sparsity, "forward", tokens=1, batch=batch)
    show(f"decoding, batch {batch:2}", sparsity, whole, given.rounds, estimate)
    show(f"decoding, batch {batch:2}, blocks alone", sparsity, inner, given.rounds, None)
    first = next((name for name in ("compact", *FROZEN) if name in networks), "dense")
    for name in networks.keys() - {"dense", first}:
        apart(outputs[name], outputs["dense" if name == "bfloat16" else first], f"{name} from {first}")
    apart(networks[first](texts).logits[:, -1], outputs[first], "with a cache from without")


@torch.no_grad()
def step_of_decoding(
    run: Callable[[nn.Module, Tensor, Cache], object], net: nn.Module, given: Tensor, cache: Cache
) -> None:
    run(net, given, cache)


def embedded(net: nn.Module, tokens: Tensor, cache: Cache) -> Tensor:
    before = cache[0][0].shape[2] if cache else 0
    positions = torch.arange(before, before + tokens.shape[1]).unsqueeze(0)
    return net.transformer.wte(tokens) + net.transformer.wpe(positions)


def advance(net: nn.Module, tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    """Logits of the tokens that come after those in the cache, and the cache with them."""
    x, longer = through_blocks(net, embedded(net, tokens, cache), cache)
    return net.lm_head(net.transformer.ln_f(x)), longer


def through_blocks(net: nn.Module, x: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
    """Activations of tokens after the last block, and the cache with them."""
    body, longer = net.transformer, Cache()
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
    return x, longer


def stepping(networks: dict[str, nn.Module], given: argparse.Namespace, sparsity: str) -> None:
    """Forward and backward over a text."""
    texts = torch.randint(0, 256, (1, given.tokens + 1), generator=torch.Generator().manual_seed(1))
    work = {name: partial(train, net.train(), texts) for name, net in networks.items()}
    losses = [f"{name} {train(net, texts):.6f}" for name, net in networks.items() if name != "dense"]
    estimate = estimated(given, sparsity, "step", tokens=given.tokens, batch=1)
    show(f"step of {given.tokens} tokens", sparsity, work, given.rounds, estimate)
    print(f"    losses: {', '.join(losses)}", flush=True)


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
