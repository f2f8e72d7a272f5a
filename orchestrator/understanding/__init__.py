"""Query understanding: what the words may mean, before anything is retrieved."""

from orchestrator.understanding.gazetteer import Gazetteer
from orchestrator.understanding.interpret import Understanding, UnderstandingSettings

__all__ = ["Gazetteer", "Understanding", "UnderstandingSettings"]
