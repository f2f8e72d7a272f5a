"""Exploration: items that may be better than is known, by Thompson sampling."""

from generators.exploration.retriever import ExplorationRetriever
from generators.exploration.settings import ExplorationSettings
from generators.servicer import generator_service

SERVICE = generator_service(
    "exploration",
    "new, seldom shown and uncertain items that are relevant",
    ExplorationSettings,
    ExplorationRetriever.open,
    definitions=2,  # 2: years count (ADR 21)
)
