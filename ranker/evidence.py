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
        candidates = request.candidates
        if len(candidates) > max_candidates:
            raise InvalidArgumentError(
                "candidates",
                f"{len(candidates)} are too many",
                allowed=f"at most {max_candidates}",
            )
        rows, generators, scores, ranks = [], [], [], []
        for row, candidate in enumerate(candidates):
            for proposal in candidate.provenance:
                rows.append(row)
                generators.append(proposal.generator)
                scores.append(proposal.score)
                ranks.append(proposal.rank)
        called = {call.generator for call in request.generator_calls if call.answered}
        evidence = cls(
            item_ids=[c.item_id for c in candidates],
            fused=np.array([c.fused_score for c in candidates], float),
            rows=rows,
            generators=generators,
            scores=scores,
            ranks=ranks,
            answered=frozenset(called.union(generators)),
        )
        evidence._check()
        return evidence

    def _check(self) -> None:
        """Raise `InvalidArgumentError` for the first value that cannot be ranked by."""
        if len(set(self.item_ids)) < len(self.item_ids) or "" in self.item_ids:
            self._refuse_ids()
        wrong = np.flatnonzero(~np.isfinite(self.fused))
        if len(wrong):
            row = int(wrong[0])
            raise InvalidArgumentError(
                f"candidates[{row}].fused_score",
                f"{self.fused[row]} is not finite",
                allowed="a finite number",
            )
        for index, (score, rank) in enumerate(zip(self.scores, self.ranks, strict=True)):
            if rank < 1 or not math.isfinite(score):
                self._refuse_proposal(index)

    def _refuse_ids(self) -> None:
        seen: set[str] = set()
        for row, item_id in enumerate(self.item_ids):
            if not item_id or item_id in seen:
                raise InvalidArgumentError(
                    f"candidates[{row}].item_id",
                    f"'{item_id}' appears twice" if item_id else "it is empty",
                    allowed="an item id, each only once",
                )
            seen.add(item_id)

    def _refuse_proposal(self, index: int) -> None:
        row = self.rows[index]
        field = f"candidates[{row}].provenance[{index - self.rows.index(row)}]"
        if self.ranks[index] < 1:
            raise InvalidArgumentError(f"{field}.rank", "it is 0", allowed="1 or more")
        raise InvalidArgumentError(
            f"{field}.score", f"{self.scores[index]} is not finite", allowed="a finite number"
        )
