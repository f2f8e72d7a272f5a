"""The lexical generator: words, fields, phrases, typos and prefixes, on tantivy or Whoosh."""

from generators.lexical.retriever import LexicalRetriever
from generators.lexical.settings import LexicalSettings
from generators.servicer import generator_service

SERVICE = generator_service(
    "lexical",
    "finds items by their words: BM25 over boosted fields, with a query language",
    LexicalSettings,
    LexicalRetriever.open,
    definitions=2,  # 2: years count (ADR 21)
)
