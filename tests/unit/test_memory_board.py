"""The score board of memory, held to the slow meaning of its sources."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.memory.board import Board

STRENGTH, BASE = 4.0, 0.05
_rows = st.integers(0, 5)
_shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
_proposals = st.lists(st.tuples(_rows, _shares), max_size=8)
_seen = st.dictionaries(_rows, st.tuples(st.floats(0, 5), st.floats(0, 9)), max_size=4)
_lifts = st.dictionaries(_rows, _shares, max_size=4)
_sources = st.lists(
    st.one_of(
        st.tuples(st.just("propose"), _proposals),
        st.tuples(st.just("observe"), _seen),
        st.tuples(st.just("lift"), _lifts),
    ),
    max_size=6,
)


@dataclass
class Slow:
    """What a board means, one item at a time."""

    scores: dict[int, float] = field(default_factory=dict)
    observed: set[int] = field(default_factory=set)
    source: dict[int, tuple[str, str]] = field(default_factory=dict)

    def propose(self, number: int, entries: list[tuple[int, float]]) -> None:
        for row, chance in entries:
            if row not in self.observed and chance > self.scores.get(row, 0.0):
                self.scores[row] = chance
                self.source[row] = "propose", str(number)

    def observe(self, number: int, entries: dict[int, tuple[float, float]]) -> None:
        for row, (success, exposure) in entries.items():
            prior = self.scores.get(row, 0.0) or BASE
            trials = max(success, exposure)
            self.scores[row] = (STRENGTH * prior + success) / (STRENGTH + trials)
            self.observed.add(row)
            self.source[row] = "observe", str(number)

    def lift(self, entries: dict[int, float]) -> None:
        for row, share in entries.items():
            prior = self.scores.get(row, 0.0)
            self.scores[row] = prior + share * (1 - prior)


def rows_of(entries: dict[int, object]) -> np.ndarray:
    return np.array(list(entries), np.int64)


@given(_sources)
def test_a_board_says_what_its_sources_mean(sources: list[tuple[str, object]]) -> None:
    board, slow = Board(strength=STRENGTH, base_rate=BASE), Slow()

    for number, (kind, entries) in enumerate(sources):
        reason = kind, str(number)
        if kind == "propose":
            rows = np.array([row for row, _ in entries], np.int64)
            chances = np.array([chance for _, chance in entries])
            board.propose(rows, chances, lambda row, place, reason=reason: reason)
            slow.propose(number, entries)
        elif kind == "observe":
            success = np.array([success for success, _ in entries.values()])
            exposure = np.array([exposure for _, exposure in entries.values()])
            board.observe(
                rows_of(entries), success, exposure, lambda row, place, reason=reason: reason
            )
            slow.observe(number, entries)
        else:
            board.lift(rows_of(entries), np.array(list(entries.values())))
            slow.lift(entries)

    rows, scores = board.found()
    assert dict(zip(rows.tolist(), scores.tolist(), strict=True)) == pytest.approx(
        {row: score for row, score in slow.scores.items() if score > 0}
    )
    for row in range(7):
        assert board.score(row) == pytest.approx(slow.scores.get(row, 0.0))
        assert board.explained(row) == (row in slow.source)
        if row in slow.source:
            assert board.explain(row) == slow.source[row]


def test_what_scores_least_may_be_left_out() -> None:
    board = Board(strength=STRENGTH, base_rate=BASE)
    board.propose(np.array([3, 1]), np.array([0.2, 0.7]), lambda row, place: ("", ""))

    assert board.found(least=0.2)[0].tolist() == [1, 3]
    assert board.found(least=0.3)[0].tolist() == [1]


def test_a_reason_is_told_the_place_where_its_source_has_the_item() -> None:
    board = Board(strength=STRENGTH, base_rate=BASE)
    board.propose(
        np.array([4, 2, 4]), np.array([0.1, 0.5, 0.3]), lambda row, place: (str(row), str(place))
    )

    assert board.explain(4) == ("4", "2")
    assert board.explain(2) == ("2", "1")
