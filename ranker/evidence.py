"""What the generators and fusion said of the candidates: a rank request, read and checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forage.errors import InvalidArgumentError
from forage.v1 import ranker_service_pb2 as pb


@dataclass(frozen=True, slots=True)
class Evidence:
    """The candidates in fused order, and every generator's proposal of one of them."""

    item_ids: list[str]
    fused: NDArray[np.float64]
    """The fused scores; shape (candidates,)."""
    rows: list[int]
    """Per proposal, the candidate's place in `item_ids`."""
    generators: list[str]
    """Per proposal, who made it."""
    scores: list[float]
    ranks: list[int]
    answered: frozenset[str]
    """The generators that were called and answered."""

    @classmethod
    def read(cls, request: pb.RankRequest, *, max_candidates: int) -> Evidence:
        """Read a request; raises `InvalidArgumentError` for the first field at fault."""
        item_ids = list(request.item_ids)
        if len(item_ids) > max_candidates:
            raise InvalidArgumentError(
                "item_ids", f"{len(item_ids)} are too many", allowed=f"at most {max_candidates}"
            )
        fused = np.array(request.fused_scores, float)
        _check_items(item_ids, fused)
        rows: list[int] = []
        generators: list[str] = []
        scores: list[float] = []
        ranks: list[int] = []
        answered: set[str] = set()
        for place, proposals in enumerate(request.proposals):
            _check(place, proposals, len(item_ids))
            rows += proposals.candidates
            generators += [proposals.generator] * len(proposals.candidates)
            scores += proposals.scores
            ranks += proposals.ranks
            if proposals.answered or proposals.candidates:
                answered.add(proposals.generator)
        _check_names([proposals.generator for proposals in request.proposals])
        return cls(item_ids, fused, rows, generators, scores, ranks, frozenset(answered))


def _check_items(item_ids: list[str], fused: NDArray[np.float64]) -> None:
    seen: set[str] = set()
    if len(set(item_ids)) < len(item_ids) or "" in item_ids:
        for place, item_id in enumerate(item_ids):
            if not item_id or item_id in seen:
                raise InvalidArgumentError(
                    f"item_ids[{place}]",
                    f"'{item_id}' appears twice" if item_id else "it is empty",
                    allowed="an item id, each only once",
                )
            seen.add(item_id)
    if len(fused) != len(item_ids):
        raise InvalidArgumentError(
            "fused_scores", f"there are {len(fused)}", allowed=f"one per item: {len(item_ids)}"
        )
    for place in np.flatnonzero(~np.isfinite(fused)).tolist():
        raise InvalidArgumentError(
            f"fused_scores[{place}]", f"{fused[place]} is not finite", allowed="a finite number"
        )


def _check(place: int, proposals: pb.Proposals, items: int) -> None:
    field, many = f"proposals[{place}]", len(proposals.candidates)
    for name, column in (("ranks", proposals.ranks), ("scores", proposals.scores)):
        if len(column) != many:
            raise InvalidArgumentError(
                f"{field}.{name}", f"there are {len(column)}", allowed=f"one per candidate: {many}"
            )
    if not many:
        return
    if max(proposals.candidates) >= items or len(set(proposals.candidates)) < many:
        raise InvalidArgumentError(
            f"{field}.candidates",
            "a place is beyond the last item, or appears twice",
            allowed=f"0 to {items - 1}, each only once",
        )
    if min(proposals.ranks) < 1:
        raise InvalidArgumentError(f"{field}.ranks", "one is 0", allowed="1 or more")
    if not all(map(math.isfinite, proposals.scores)):
        raise InvalidArgumentError(f"{field}.scores", "one is not finite", allowed="finite numbers")


def _check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise InvalidArgumentError(
            "proposals", "a generator appears twice", allowed="each generator only once"
        )
