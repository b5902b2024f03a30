"""Proximal policy optimization on CartPole: dense, sparse at the same widths, and sparse at equal cost.

    python benchmarks/training/reinforcement_ppo.py [--seeds 5] [--steps 20480] [--out runs.jsonl]

Networks, masks and measures are those of `reinforcement.py`; needs Gymnasium too. One network gives the logits of the actions
and the value of a state. Eight environments play 64 steps, of which four passes in parts of 128 states update the weights
(Schulman et al. 2017): clipping at 0.2, advantages with λ = 0.95, Adam from 1e-3 down to 0. Masks change every 25 updates until
three quarters of training. *Return* is that of greedy episodes, *last quarter* that of sampled episodes which end in the last
quarter of training. *Training MACs* count updates and the passes that choose actions, exactly.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from reinforcement import (
    ACTIONS,
    ARMS,
    DISCOUNT,
    ENVIRONMENT,
    RATE,
    THRESHOLD,
    Arm,
    Learner,
    Outcome,
    greedy_return,
    results,
    table,
)
from torch import Tensor
from torch.distributions import Categorical

import iftplan.nn as ift_nn
from iftplan.report.terminal import print_table

ENVIRONMENTS, ROLLOUT, PASSES, PART = 8, 64, 4, 128
CLIP, SMOOTHING, ENTROPY, VALUE, NORM = 0.2, 0.95, 0.01, 0.5, 0.5
BATCH = ENVIRONMENTS * ROLLOUT
PLAYED = tuple(arm for arm in ARMS if not arm.recycles)


class Play:
    """Environments that are played side by side, and the returns of episodes that ended."""

    def __init__(self, seed: int) -> None:
        import gymnasium

        self.environments: Sequence[Any] = [gymnasium.make(ENVIRONMENT) for _ in range(ENVIRONMENTS)]
        first = [x.reset(seed=1000 * seed + i)[0] for i, x in enumerate(self.environments)]
        self.states = torch.stack([torch.from_numpy(state) for state in first])
        self.totals = [0.0] * ENVIRONMENTS
        self.ended: list[tuple[int, float]] = []
        self.steps = 0

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards, and whether an episode goes on; environments whose episode ended begin again."""
        rewards, goes_on = torch.zeros(ENVIRONMENTS), torch.ones(ENVIRONMENTS)
        for i, environment in enumerate(self.environments):
            state, reward, over, late, _ = environment.step(int(actions[i]))
            self.totals[i] += float(reward)
            rewards[i] = float(reward)
            if over or late:
                self.ended.append((self.steps, self.totals[i]))
                self.totals[i], goes_on[i] = 0.0, 0.0
                state, _ = environment.reset()
            self.states[i] = torch.from_numpy(state)
        self.steps += ENVIRONMENTS
        return rewards, goes_on


def advantages(rewards: Tensor, goes_on: Tensor, values: Tensor) -> Tensor:
    """Generalized advantages (Schulman et al. 2016), of each step and environment.

    Args:
        rewards: (steps, environments).
        goes_on: 0 where an episode ended with the step.
        values: of the states before each step, and of those behind the last.
    """
    found, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for step in reversed(range(len(rewards))):
        surprise = rewards[step] + DISCOUNT * goes_on[step] * values[step + 1] - values[step]
        following = surprise + DISCOUNT * SMOOTHING * goes_on[step] * following
        found[step] = following
    return found


def rollout(learner: Learner, play: Play, drawn: torch.Generator) -> tuple[Tensor, ...]:
    """States, actions, their log-probabilities, advantages and values to learn, one a row."""
    states, actions, chances, rewards, goes_on, values = ([] for _ in range(6))
    with torch.no_grad():
        for _ in range(ROLLOUT):
            output = learner.network(play.states)
            policy = output[:, :ACTIONS].log_softmax(1)
            action = torch.multinomial(policy.exp(), 1, generator=drawn)
            states.append(play.states.clone())
            actions.append(action)
            chances.append(policy.gather(1, action))
            values.append(output[:, ACTIONS])
            reward, on = play.step(action)
            rewards.append(reward)
            goes_on.append(on)
        values.append(learner.network(play.states)[:, ACTIONS])
    learner.macs += (ROLLOUT + 1) * ENVIRONMENTS * learner.forward_macs
    found = advantages(torch.stack(rewards), torch.stack(goes_on), torch.stack(values))
    wanted = found + torch.stack(values[:-1])
    return torch.cat(states), torch.cat(actions), torch.cat(chances), found.flatten(), wanted.flatten()


def loss_of(output: Tensor, actions: Tensor, chances: Tensor, gains: Tensor, wanted: Tensor) -> Tensor:
    """Clipped objective, value loss and entropy.

    Args:
        output: of the network, now.
        actions: that were taken.
        chances: log-probabilities that they had.
        gains: advantages.
        wanted: values to learn.
    """
    policy = output[:, :ACTIONS].log_softmax(1)
    ratio = (policy.gather(1, actions) - chances).exp().squeeze(1)
    gains = (gains - gains.mean()) / (gains.std() + 1e-8)
    clipped = torch.minimum(ratio * gains, ratio.clamp(1 - CLIP, 1 + CLIP) * gains).mean()
    value = (output[:, ACTIONS] - wanted).square().mean() / 2
    return VALUE * value - clipped - ENTROPY * Categorical(logits=policy).entropy().mean()


def run(arm: Arm, seed: int, steps: int, *, episodes: int = 20) -> Outcome:
    """Train one arm, and play greedy episodes with what it became."""
    rounds = max(1, steps // BATCH)
    learner = Learner(arm, seed, rounds * PASSES * BATCH // PART, ACTIONS + 1, interval=25)
    play, drawn = Play(seed), torch.Generator().manual_seed(seed)
    for number in range(rounds):
        for group in learner.optimizer.param_groups:
            group["lr"] = RATE * (1 - number / rounds)
        states, *rest = rollout(learner, play, drawn)
        for _ in range(PASSES):
            for part in torch.randperm(BATCH, generator=drawn).split(PART):
                loss = loss_of(learner.network(states[part]), *(x[part] for x in rest))
                learner.descend(loss, states[part], NORM)
    last = [value for when, value in play.ended if when >= play.steps * 3 // 4]
    found = ift_nn.dormant_neurons(learner.network, states[:256], threshold=THRESHOLD)
    assert found.share is not None
    return Outcome(
        arm.name,
        seed,
        steps,
        greedy_return(play.environments[0], learner, episodes),
        mean(last) if last else max(play.totals),
        learner.forward_macs,
        learner.macs,
        float(found.share),
        learner.recycled,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20_480)
    parser.add_argument("--out", type=Path, help="file of finished runs, one a line; these are not repeated")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print_table(table(results(PLAYED, given.seeds, given.steps, given.out, run), "PPO"))


if __name__ == "__main__":
    main()
