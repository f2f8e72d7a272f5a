"""The semantic generator: items whose meaning is near the query's, or near example items.

Item texts become unit vectors once (`forage.encoder`, cached by content hash) and live in Milvus:
Milvus Lite beside the process by default, any Milvus server by its address. Filters are pushed
down as Milvus expressions, so a filtered search scans no more than an unfiltered one.
"""

from __future__ import annotations

from generators.semantic.retriever import SemanticRetriever
from generators.semantic.settings import SemanticSettings
from generators.servicer import generator_service

SERVICE = generator_service(
    "semantic",
    "Finds items by meaning, and items like given ones.",
    SemanticSettings,
    SemanticRetriever.open,
)

__all__ = ["SERVICE"]
