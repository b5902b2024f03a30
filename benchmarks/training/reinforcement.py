"""Deep Q-learning on CartPole: dense, sparse at the same widths, sparse at equal cost, and recycling of dormant neurons.

    python benchmarks/training/reinforcement.py [--seeds 5] [--steps 12000] [--out runs.jsonl]

Needs Gymnasium (`pip install gymnasium`), which iftplan itself does not. The network has two hidden layers of 128 neurons. *Sparse*
keeps a quarter of the weights between them; *wide* is the plan of Sparse Wide at sparsity 3/4, whose whole forward pass costs what
the dense network's costs. Masks stay (static) or change every 100 updates until three quarters of training (SET, RigL). ReDo recycles
neurons with a score of at most 0.025 every 1000 updates. A seed gives all arms the same environment.

The agent is DQN (Mnih et al. 2015): replay of all transitions, a target network, Adam, the Huber loss; exploration falls from 1
to 0.05 in the first fifth. *Return* is that of greedy episodes after training, *last quarter* that of the episodes with exploration
that end in the last quarter of training. *Training MACs* count updates, target values, actions and measurements, exactly. *Dormant*
is the share of hidden neurons with a score of at most 0.025 on 256 states of the replay, at the end of training. Errors are standard
errors over seeds. A run that is in `--out` already is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import smooth_l1_loss  # noqa: E402

import iftplan as ift  # noqa: E402
import iftplan.nn as ift_nn  # noqa: E402
from iftplan.base.units import count  # noqa: E402
from iftplan.nn.masking.step_masks import step_macs, weights_by_layer  # noqa: E402
from iftplan.plans.plan import Plan, Scope  # noqa: E402
from iftplan.report.table import Table  # noqa: E402
from iftplan.report.terminal import print_table  # noqa: E402
from iftplan.runs.costs.training_cost import TrainingCost  # noqa: E402

ENVIRONMENT = "CartPole-v1"
OBSERVATIONS, ACTIONS, WIDTH = 4, 2, 128
BATCH, DISCOUNT, RATE = 64, 0.99, 1e-3
WARMUP, EVERY, TARGET = 1000, 2, 250
THRESHOLD, INTERVAL = 0.025, 1000


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train.

    Attributes:
        name: for people.
        family: of the plan; empty for the dense network.
        method: how masks change.
        recycles: whether dormant neurons are recycled.
    """

    name: str
    family: str = ""
    method: str = ""
    recycles: bool = False


ARMS = (
    Arm("dense"),
    Arm("dense, ReDo", recycles=True),
    *(Arm(f"sparse, {method}", "none", method) for method in ("static", "set", "rigl")),
    *(Arm(f"wide, {method}", "wide", method) for method in ("static", "set", "rigl")),
    Arm("wide, rigl, ReDo", "wide", "rigl", recycles=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run reached.

    Attributes:
        arm: its name.
        seed: of everything.
        steps: of the environment.
        greedy: mean return of greedy episodes after training.
        last_quarter: mean return of the training episodes that ended in the last quarter.
        forward_macs: of one state.
        training_macs: of the whole run.
        dormant: share of hidden neurons.
        recycled: neurons that were recycled, in all.
    """

    arm: str
    seed: int
    steps: int
    greedy: float
    last_quarter: float
    forward_macs: int
    training_macs: int
    dormant: float
    recycled: int


def network(outputs: int = ACTIONS) -> nn.Module:
    """Values of the actions in a state, or whatever else an agent asks of it."""
    return nn.Sequential(
        nn.Linear(OBSERVATIONS, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, outputs),
    )


def plan_of(arm: Arm, outputs: int = ACTIONS) -> Plan:
    """The plan of an arm; of the dense one it is only looked at for the dense network's cost."""
    family = arm.family or "none"
    return ift.plan(network(outputs), family, "3/4", inputs=f"1x{OBSERVATIONS}", scope="model")


def algorithm_of(method: str, interval: int, updates: int) -> ift_nn.Algorithm:
    """What changes masks, until three quarters of training."""
    if method == "static":
        return ift_nn.Static()
    kind = ift_nn.SET if method == "set" else ift_nn.RigL
    return kind(interval=interval, end=updates * 3 // 4)


class Replay:
    """All transitions so far."""

    def __init__(self, size: int) -> None:
        self.states, self.following = torch.zeros(size, OBSERVATIONS), torch.zeros(size, OBSERVATIONS)
        self.actions = torch.zeros(size, dtype=torch.long)
        self.rewards, self.goes_on = torch.zeros(size), torch.zeros(size)
        self.count = 0

    def add(self, state: Tensor, action: int, reward: float, following: Tensor, *, ended: bool) -> None:
        i = self.count
        self.states[i], self.actions[i], self.rewards[i] = state, action, reward
        self.following[i], self.goes_on[i] = following, 0.0 if ended else 1.0
        self.count += 1

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        i = torch.randint(self.count, (size,), generator=generator)
        return self.states[i], self.actions[i], self.rewards[i], self.following[i], self.goes_on[i]


class Learner:
    """A network in training, with the ledger of its MACs.

    Args:
        arm: how it is trained.
        seed: of weights and masks.
        updates: of its weights, in all.
        outputs: numbers that it gives for a state.
        interval: updates of weights from one change of masks to the next.
    """

    def __init__(
        self, arm: Arm, seed: int, updates: int, outputs: int = ACTIONS, interval: int = 100
    ) -> None:
        torch.manual_seed(seed)
        self.arm, self.seed, self.outputs = arm, seed, outputs
        self.plan = plan_of(arm, outputs)
        self.network = self.made()
        self.optimizer = torch.optim.Adam(self.network.parameters(), RATE, fused=True)
        self.masks = None
        if arm.family:
            algorithm = algorithm_of(arm.method, interval, updates)
            self.masks = ift_nn.Masking(self.network, self.optimizer, algorithm, steps=updates, seed=seed)
        self.recycling = ift_nn.Recycling(interval=INTERVAL, threshold=THRESHOLD, end=updates * 3 // 4)
        self.cost = TrainingCost.of(self.plan)
        self.groups = weights_by_layer(self.plan, self.network) if arm.family else {}
        dense = self.plan.dense_macs(Scope.MODEL)
        self.forward_macs = self.plan.macs(Scope.MODEL) if arm.family else dense
        self.macs = self.updates = self.recycled = 0

    def made(self) -> nn.Module:
        """A network of the arm, fresh."""
        fresh = network(self.outputs)
        return ift_nn.apply(self.plan, fresh, seed=self.seed) if self.arm.family else fresh

    @torch.no_grad()
    def greedy(self, state: Tensor) -> int:
        return int(self.network(state[None])[0, :ACTIONS].argmax())

    def descend(self, loss: Tensor, states: Tensor, most: float = 0.0) -> None:
        """Update the weights once.

        Args:
            loss: of a pass of these states.
            states: that it is on.
            most: largest norm of the gradient; 0 for none.
        """
        self.optimizer.zero_grad()
        loss.backward()
        if self.masks is not None:
            self.masks.step()
        if most:
            nn.utils.clip_grad_norm_(self.network.parameters(), most)
        self.optimizer.step()
        self.updates += 1
        if self.masks is None:
            self.macs += len(states) * self.cost.dense_step
        else:
            self.macs += step_macs(self.cost, self.groups, self.masks.taken, len(states))
        if self.arm.recycles:
            done = self.recycling.step_(self.network, self.optimizer, states, self.updates, seed=self.seed)
            if done is not None:
                self.recycled += done.neurons
                self.macs += done.found.passes * self.forward_macs


class Agent(Learner):
    """Deep Q-learning."""

    def __init__(self, arm: Arm, seed: int, updates: int) -> None:
        super().__init__(arm, seed, updates)
        self.target = self.made()
        self.follow()

    def follow(self) -> None:
        """Give the target network the weights that the network has now."""
        self.target.load_state_dict(self.network.state_dict())

    def update(self, batch: Sequence[Tensor]) -> None:
        states, actions, rewards, following, goes_on = batch
        with torch.no_grad():
            wanted = rewards + DISCOUNT * goes_on * self.target(following).max(1).values
        values = self.network(states).gather(1, actions[:, None]).squeeze(1)
        self.macs += len(states) * self.forward_macs  # of the target network
        self.descend(smooth_l1_loss(values, wanted), states)
        if self.updates % TARGET == 0:
            self.follow()


def run(arm: Arm, seed: int, steps: int, *, episodes: int = 20) -> Outcome:
    """Train one arm, and play greedy episodes with what it became."""
    import gymnasium

    environment = gymnasium.make(ENVIRONMENT)
    agent = Agent(arm, seed, max(1, (steps - WARMUP) // EVERY))
    replay, drawn = Replay(steps), torch.Generator().manual_seed(seed)
    state, total = torch.from_numpy(environment.reset(seed=seed)[0]), 0.0
    ended: list[tuple[int, float]] = []
    for step in range(steps):
        exploration = max(0.05, 1 - 0.95 * step / (0.2 * steps))
        if float(torch.rand((), generator=drawn)) < exploration:
            action = int(torch.randint(ACTIONS, (), generator=drawn))
        else:
            action = agent.greedy(state)
            agent.macs += agent.forward_macs
        observed, reward, over, late, _ = environment.step(action)
        following = torch.from_numpy(observed)
        replay.add(state, action, float(reward), following, ended=over)
        state, total = following, total + float(reward)
        if over or late:
            ended.append((step, total))
            state, total = torch.from_numpy(environment.reset()[0]), 0.0
        if step >= WARMUP and step % EVERY == 0:
            agent.update(replay.batch(BATCH, drawn))
    last = [value for when, value in ended if when >= steps * 3 // 4]
    found = ift_nn.dormant_neurons(agent.network, replay.batch(256, drawn)[0], threshold=THRESHOLD)
    assert found.share is not None
    return Outcome(
        arm.name,
        seed,
        steps,
        greedy_return(environment, agent, episodes),
        mean(last) if last else total,
        agent.forward_macs,
        agent.macs,
        float(found.share),
        agent.recycled,
    )


def greedy_return(environment: Any, learner: Learner, episodes: int) -> float:
    """Mean return of greedy episodes, the same for all arms and seeds."""
    returns = []
    for number in range(episodes):
        state, total, over = environment.reset(seed=10_000 + number)[0], 0.0, False
        while not over:
            state, reward, ended, late, _ = environment.step(learner.greedy(torch.from_numpy(state)))
            total, over = total + float(reward), ended or late
        returns.append(total)
    return mean(returns)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard error of the values."""
    error = f" ± {stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{error}"


def table(outcomes: Sequence[Outcome], agent: str = "DQN") -> Table:
    """Arm by arm: means over seeds."""
    dense = {x.seed: x.training_macs for x in outcomes if x.arm == "dense"}
    rows = []
    for arm in ARMS:
        own = [x for x in outcomes if x.arm == arm.name]
        if not own:
            continue
        ratios = [x.training_macs / dense[x.seed] for x in own if x.seed in dense]
        rows.append(
            (
                arm.name,
                str(len(own)),
                spread([x.greedy for x in own]),
                spread([x.last_quarter for x in own]),
                count(own[0].forward_macs),
                f"{mean(ratios):.4f}×" if ratios else "",
                f"{spread([100 * x.dormant for x in own])} %",
                f"{mean(x.recycled for x in own):.1f}",
            )
        )
    columns = (
        "arm",
        ">seeds",
        ">return",
        ">last quarter",
        ">forward MACs",
        ">training MACs",
        ">dormant",
        ">recycled",
    )
    return Table(columns, tuple(rows), f"{agent} on {ENVIRONMENT}, {count(outcomes[0].steps)} steps")


def read(path: Path | None) -> list[Outcome]:
    """The runs that a file has."""
    lines = path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
    return [Outcome(**json.loads(line)) for line in lines]


def results(
    arms: Sequence[Arm],
    seeds: int,
    steps: int,
    out: Path | None,
    play: Callable[[Arm, int, int], Outcome],
) -> list[Outcome]:
    """Every arm at every seed; runs that a file has are not repeated, and others are added to it."""
    known = {(x.arm, x.seed): x for x in read(out) if x.steps == steps}
    for seed in range(seeds):
        for arm in arms:
            if (arm.name, seed) in known:
                continue
            known[arm.name, seed] = play(arm, seed, steps)
            if out is not None:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(known[arm.name, seed])) + "\n")
    return [known[arm.name, seed] for seed in range(seeds) for arm in arms]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--out", type=Path, help="file of finished runs, one a line; these are not repeated")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print_table(table(results(ARMS, given.seeds, given.steps, given.out, run)))


if __name__ == "__main__":
    main()
