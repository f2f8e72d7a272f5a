"""Memory: what worked for this query before (query to entity), predicted until it is observed."""

from generators.memory.retriever import MemoryRetriever
from generators.memory.settings import MemorySettings
from generators.servicer import generator_service

SERVICE = generator_service(
    "memory",
    "what worked for this query before",
    MemorySettings,
    MemoryRetriever.open,
    definitions=2,  # 2: years count, and what fits best comes first (ADR 21)
)
