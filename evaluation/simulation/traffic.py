"""Who asks what, and when: a seeded stream of requests with repeats, split by need and by time.

Within a kind, needs repeat by a Zipf law. Before the cut only needs of the training groups are
asked; after it all of them are, so later traffic has repeats as well as queries, films and users
that nothing was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluation.collections.collection import Topic

SHARES: Mapping[str, float] = {
    "title": 0.2,
    "people": 0.2,
    "misspelt": 0.1,
    "partial": 0.1,
    "theme": 0.2,
    "browse": 0.1,
    "next": 0.1,
}
"""How much of the traffic is of each kind: a fifth of each family, so that none was favoured."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The shape of the traffic."""

    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    zipf: float = 1.0
    """The need at place r of its kind's order is asked in proportion to r^-zipf."""
    seconds_between: float = 3.0
    """Mean of the exponential time between two requests."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests in order; arrays are aligned."""

    questions: NDArray[np.int64]
    """Which need each request asks."""
    times: NDArray[np.float64]
    """Seconds since the epoch."""

    def __len__(self) -> int:
        return len(self.questions)


def held_out_groups(topics: Sequence[Topic], *, share: float, seed: int) -> frozenset[str]:
    """Draw the groups whose needs are asked only after the cut."""
    groups = sorted({topic.group or topic.query_id for topic in topics})
    chosen = np.random.default_rng(seed).random(len(groups)) < share
    return frozenset(g for g, out in zip(groups, chosen.tolist(), strict=True) if out)


def stream(
    topics: Sequence[Topic],
    allowed: NDArray[np.bool_],
    length: int,
    *,
    start: float,
    mix: Mix,
    seed: int,
    order_seed: int,
) -> Stream:
    """Draw requests among the allowed needs.

    `order_seed` fixes which needs are popular, so that streams of one world agree on it.
    """
    rng = np.random.default_rng(seed)
    weights = popularity(topics, mix, order_seed) * allowed
    chosen = rng.choice(len(topics), size=length, p=weights / weights.sum())
    times = start + np.cumsum(rng.exponential(mix.seconds_between, size=length))
    return Stream(chosen, times)


def popularity(topics: Sequence[Topic], mix: Mix, seed: int) -> NDArray[np.float64]:
    """Return how often each need is asked: the share of its kind times its Zipf weight."""
    rng = np.random.default_rng(seed)
    weights = np.zeros(len(topics))
    kinds = np.array([topic.kind for topic in topics])
    for kind in sorted(mix.shares):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        if len(members):
            zipf = np.arange(1, len(members) + 1, dtype=np.float64) ** -mix.zipf
            weights[members] = mix.shares[kind] * zipf / zipf.sum()
    return weights
