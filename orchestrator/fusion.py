"""Fusion: one list out of many, keeping every generator's evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from forage.v1 import candidate_pb2, generator_service_pb2


class Evidence(NamedTuple):
    """One generator's reason for a candidate; `add_provenance` makes it a message."""

    rank: int
    """In the generator's list; starts at 1."""
    generator: str
    score: float
    """On the generator's own scale."""
    reasons: Sequence[candidate_pb2.Reason] = ()


_BY_RANK = itemgetter(0, 1)


@dataclass(slots=True)
class Candidate:
    """One item of the merged list."""

    item_id: str
    fused_score: float = 0.0
    provenance: list[Evidence] = field(default_factory=list)
    """Every generator that found it, best rank first, ties by generator name."""


def fuse(
    lists: Mapping[str, Sequence[generator_service_pb2.Hit]],
    weights: Mapping[str, float],
    *,
    k: int,
) -> list[Candidate]:
    """Return the union of the lists, best first, by weighted reciprocal rank fusion.

    score = Σ_g weight_g / (k + rank_g) (Cormack, Clarke & Büttcher, 2009). The order is total:
    ties go to the better best rank, then to the smaller item id. Raw scores of different
    generators are never compared. Inputs are not changed. Every generator has to have a weight.
    """
    merged: dict[str, Candidate] = {}
    for generator in sorted(lists):
        weight = weights[generator]
        for rank, hit in enumerate(lists[generator], start=1):
            item_id = hit.item_id
            candidate = merged.get(item_id)
            if candidate is None:
                candidate = merged[item_id] = Candidate(item_id)
            candidate.fused_score += weight / (k + rank)
            candidate.provenance.append(Evidence(rank, generator, hit.score, hit.reasons))
    for candidate in merged.values():
        if len(candidate.provenance) > 1:
            candidate.provenance.sort(key=_BY_RANK)
    return sorted(merged.values(), key=lambda c: (-c.fused_score, c.provenance[0].rank, c.item_id))


def add_provenance(
    target: RepeatedCompositeFieldContainer[candidate_pb2.Provenance],
    provenance: Sequence[Evidence],
    *,
    reasons: bool = False,
) -> None:
    """Append the evidence to a message's field, with the generators' reasons or without."""
    for evidence in provenance:
        added = target.add(generator=evidence.generator, score=evidence.score, rank=evidence.rank)
        if reasons:
            added.reasons.extend(evidence.reasons)


def unique_finds(candidates: Sequence[Candidate]) -> dict[str, int]:
    """Return, per generator, how many candidates no other generator found."""
    counts: dict[str, int] = {}
    for candidate in candidates:
        if len(candidate.provenance) == 1:
            generator = candidate.provenance[0].generator
            counts[generator] = counts.get(generator, 0) + 1
    return counts
