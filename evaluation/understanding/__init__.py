"""Query understanding, measured: slots against people's annotations, and misspelt names."""

from __future__ import annotations

from evaluation.understanding.slots import SlotReport, score_slots
from evaluation.understanding.spelling import SpellingReport, score_spelling

__all__ = ["SlotReport", "SpellingReport", "score_slots", "score_spelling"]
