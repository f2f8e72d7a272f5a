"""The graph generator: items near what was asked for, in a graph of relations and engagement.

Items are nodes. Catalogue relations (this film has that person in its cast) and co-engagement
(users who chose this also chose that; this was chosen for that query) are edges. A random walk
that restarts at what the query names, at example items and at the user's history finds the
items around them, and says by which path.
"""

from __future__ import annotations

from generators.graph.retriever import GraphRetriever
from generators.graph.settings import GraphSettings
from generators.servicer import generator_service

SERVICE = generator_service(
    "graph",
    "Finds items related to the people, genres and items that a query names.",
    GraphSettings,
    GraphRetriever.open,
    definitions=2,  # 2: years count (ADR 21)
)

__all__ = ["SERVICE"]
