"""Click models: how a page of results becomes clicks, given how attractive each result is.

Every model says both what its users do at random (`draw`) and how likely each click is
(`probabilities`), so that expected rewards need no sampling and the sampler can be tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class ClickModel(Protocol):
    """Users who look at a page and click. Stateless; randomness is an argument."""

    @property
    def name(self) -> str:
        """The name in configuration and reports."""
        ...

    def probabilities(self, attraction: Floats) -> Floats:
        """Return P(click) of each position, given P(click | looked at) in [0, 1]."""
        ...

    def most(self, attraction: Floats) -> Floats:
        """Return a bound on P(click) of each position over all orders of the items.

        `attraction` is sorted, best first, along its last axis. Weighted by what falls with the
        position, the sum of the bound is never below that of any order's `probabilities`.
        """
        ...

    def draw(self, attraction: Floats, rng: np.random.Generator) -> Ints:
        """Return the clicked places, from 0, in the order of the clicks."""
        ...


@dataclass(frozen=True, slots=True)
class PositionBased:
    """P(look at k) = k^-decay, whatever is shown (Richardson, Dominowska & Ragno, 2007)."""

    decay: float = 0.7
    name: str = "position"

    def examination(self, positions: int) -> Floats:
        """Return P(look) of the first positions."""
        return np.arange(1, positions + 1, dtype=np.float64) ** -self.decay

    def probabilities(self, attraction: Floats) -> Floats:
        """Return examination times attraction."""
        clicked: Floats = self.examination(len(attraction)) * attraction
        return clicked

    def most(self, attraction: Floats) -> Floats:
        """Return examination times attraction: the best order is the sorted one."""
        most: Floats = self.examination(attraction.shape[-1]) * attraction
        return most

    def draw(self, attraction: Floats, rng: np.random.Generator) -> Ints:
        """Look at every position by its own coin."""
        return np.flatnonzero(rng.random(len(attraction)) < self.probabilities(attraction))


@dataclass(frozen=True, slots=True)
class Cascade:
    """Users read from the top and stop at the first click (Craswell et al., 2008)."""

    name: str = "cascade"

    def probabilities(self, attraction: Floats) -> Floats:
        """Return attraction times the chance that nothing above was clicked."""
        before = np.concatenate([[1.0], np.cumprod(1 - attraction)[:-1]])
        clicked: Floats = attraction * before[: len(attraction)]
        return clicked

    def most(self, attraction: Floats) -> Floats:
        """Return the attraction, as if nothing was clicked above."""
        return attraction.copy()

    def draw(self, attraction: Floats, rng: np.random.Generator) -> Ints:
        """Return the first attractive place, if there is one."""
        return np.flatnonzero(rng.random(len(attraction)) < attraction)[:1]


@dataclass(frozen=True, slots=True)
class DynamicBayesian:
    """Users read on with probability γ until satisfied (Chapelle & Zhang, 2009).

    A clicked result satisfies with probability `satisfaction` times its attraction: what is
    clicked for good reasons satisfies more often.
    """

    perseverance: float = 0.9
    satisfaction: float = 0.7
    name: str = "dbn"

    def probabilities(self, attraction: Floats) -> Floats:
        """Return attraction times the chance that the user reads so far."""
        onward = self.perseverance * (1 - attraction * attraction * self.satisfaction)
        reach = np.concatenate([[1.0], np.cumprod(onward)[:-1]])
        clicked: Floats = attraction * reach[: len(attraction)]
        return clicked

    def most(self, attraction: Floats) -> Floats:
        """Return attraction times perseverance, as if nobody was satisfied above."""
        most: Floats = attraction * self.perseverance ** np.arange(attraction.shape[-1])
        return most

    def draw(self, attraction: Floats, rng: np.random.Generator) -> Ints:
        """Read from the top until satisfied or tired."""
        coins = rng.random((3, len(attraction)))
        clicked = coins[0] < attraction
        satisfied = clicked & (coins[1] < self.satisfaction * attraction)
        stops = np.flatnonzero(satisfied | (coins[2] >= self.perseverance))
        end = int(stops[0]) + 1 if len(stops) else len(attraction)
        return np.flatnonzero(clicked[:end])


@dataclass(frozen=True, slots=True)
class Perfect:
    """Users who look at everything: what no click model can give, for comparison."""

    name: str = "perfect"

    def probabilities(self, attraction: Floats) -> Floats:
        """Return the attraction itself."""
        return attraction.copy()

    def most(self, attraction: Floats) -> Floats:
        """Return the attraction itself."""
        return attraction.copy()

    def draw(self, attraction: Floats, rng: np.random.Generator) -> Ints:
        """Click whatever attracts."""
        return np.flatnonzero(rng.random(len(attraction)) < attraction)


CLICK_MODELS: dict[str, ClickModel] = {
    model.name: model for model in (PositionBased(), Cascade(), DynamicBayesian(), Perfect())
}


def attraction(grades: Ints, *, noise: float = 0.02, top: float = 0.9) -> Floats:
    """Return P(click | looked at) of grades 0 to 4.

    `noise` is the chance that an unwanted result is clicked all the same; the best grade
    attracts with `top`, lower ones by the usual gain (2^grade - 1) / 15.
    """
    gain = (2.0**grades - 1) / 15
    found: Floats = noise + (top - noise) * gain
    return found
