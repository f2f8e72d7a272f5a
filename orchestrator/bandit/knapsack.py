"""The exact multiple-choice knapsack that turns utilities into a plan.

A plan picks one level per generator. Generator g misses the wanted item with probability
exp(-u_g), u = -log(1 - p). Generators overlap: what one finds, others tend to find too. A Gumbel
copula joins the misses, P(all miss) = exp(-(Σ u_g^θ)^(1/θ)); the redundancy θ is 1 if finds are
independent, and as it grows the union covers no more than the best generator alone (Nelsen, 2006,
§4.2). Coverage is monotone in U = Σ u_g^θ, a plain sum: for every total cost the dynamic programme
keeps the largest U, and the best cost is then picked by coverage net of its price, exactly.
(Thompson sampling with an approximate oracle can fail: Wang & Chen, 2018.)
"""

from __future__ import annotations

import math

import numpy as np

from orchestrator.bandit.arrays import BoolArray, FloatArray, IntArray

MAX_CELLS = 20_000
"""The largest budget, in the greatest common divisor of the costs, that a table is built for."""


def solve(
    utility: FloatArray,
    cost: IntArray,
    feasible: BoolArray,
    budget: int,
    *,
    price: float = 0.0,
    redundancy: float = 1.0,
) -> IntArray:
    """Return the best level of every generator, for each of M draws: [M, G].

    Maximises `coverage - price * Σ cost` over the feasible levels with `Σ cost` at most `budget`.
    `utility` is [M, G, L]; `cost` and `feasible` are [G, L] and shared by all draws.
    Among equally good plans the cheapest wins; among those, the earlier generators get more.
    Raises `ValueError` if a generator has no feasible level within the budget, or if the costs
    are so fine that the table would exceed `MAX_CELLS` rows.
    """
    options = _options(cost, feasible, budget)
    unit = math.gcd(*(c for choices in options for _, c in choices)) or 1
    options = [[(level, c // unit) for level, c in choices] for choices in options]
    cells = min(budget // unit, sum(max(c for _, c in choices) for choices in options))
    if cells > MAX_CELLS:
        raise ValueError(f"{cells} cost units in the budget, at most {MAX_CELLS}: use coarser ones")
    if redundancy != 1:
        utility = utility**redundancy
    by_level = np.ascontiguousarray(utility.transpose(1, 2, 0))
    tables = _forward(by_level, options, cells)
    totals = _best_totals(tables[-1], price * unit, redundancy)
    return _backward(by_level, options, tables, totals)


def _options(cost: IntArray, feasible: BoolArray, budget: int) -> list[list[tuple[int, int]]]:
    """List every generator's (level, cost) pairs that can be afforded, cheapest first."""
    options = [
        sorted(
            (
                (level, c)
                for level, (c, ok) in enumerate(zip(costs, oks, strict=True))
                if ok and c <= budget
            ),
            key=lambda pair: pair[1],
        )
        for costs, oks in zip(cost.tolist(), feasible.tolist(), strict=True)
    ]
    if not all(options):
        raise ValueError("every generator needs a feasible level within the budget")
    return options


def _forward(
    by_level: FloatArray, options: list[list[tuple[int, int]]], cells: int
) -> list[FloatArray]:
    """Return, after each generator, the best utility sum of every exact total cost: [cells, M]."""
    draws = by_level.shape[2]
    tables = [np.zeros((1, draws))]
    scratch = np.empty((cells + 1, draws))
    for choices, utilities in zip(options, by_level, strict=True):
        before = tables[-1]
        size = min(cells, len(before) - 1 + max(c for _, c in choices)) + 1
        after = np.full((size, draws), -np.inf)
        for level, c in choices:
            rows = min(len(before), size - c)
            if rows <= 0:
                continue
            total = np.add(before[:rows], utilities[level], out=scratch[:rows])
            window = after[c : c + rows]
            np.maximum(window, total, out=window)
        tables.append(after)
    return tables


def covered(utilities: FloatArray, redundancy: float = 1.0) -> float:
    """Return the probability that any of the generators finds the item, given each one's utility.

    `utilities` is [G]; `redundancy` is at least 1, else `ValueError`.
    """
    if redundancy < 1:
        raise ValueError(f"redundancy is at least 1, got {redundancy}")
    return -math.expm1(-(float((utilities**redundancy).sum()) ** (1 / redundancy)))


def _best_totals(last: FloatArray, price: float, redundancy: float) -> IntArray:
    """Return the total cost of the best plan of every draw; argmax takes the cheapest of equals."""
    if price == 0:
        return np.asarray(np.argmax(last, axis=0), dtype=np.int64)
    with np.errstate(invalid="ignore"):
        union = last if redundancy == 1 else np.where(last < 0, last, last ** (1 / redundancy))
    net = -np.exp(-union) - price * np.arange(len(last))[:, None]
    return np.asarray(np.argmax(net, axis=0), dtype=np.int64)


def _backward(
    by_level: FloatArray,
    options: list[list[tuple[int, int]]],
    tables: list[FloatArray],
    totals: IntArray,
) -> IntArray:
    """Walk back from the best totals; the sums are recomputed bit for bit, so equality is exact."""
    draws = by_level.shape[2]
    every = np.arange(draws)
    chosen = np.empty((draws, len(options)), dtype=np.int64)
    left = totals
    for g in range(len(options) - 1, -1, -1):
        levels = np.array([level for level, _ in options[g]])
        costs = np.array([c for _, c in options[g]])
        before = tables[g]
        rest = left - costs[:, None]
        reachable = (rest >= 0) & (rest < len(before))
        sums = before[np.where(reachable, rest, 0), every] + by_level[g][levels]
        pick = np.argmax(np.where(reachable, sums, -np.inf), axis=0)
        chosen[:, g] = levels[pick]
        left = left - costs[pick]
    return chosen
