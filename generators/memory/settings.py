"""What the memory generator can be told."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from forage.settings import GeneratorSettings


class MemorySettings(GeneratorSettings):
    """Settings of the memory service."""

    half_life_days: float = Field(default=30.0, gt=0, le=3650)
    """After so many days an observation counts half."""
    prior_strength: float = Field(default=4.0, gt=0, le=1000)
    """How many looks a prediction is worth: so many real ones weigh as much as it does."""
    base_rate: float = Field(default=0.05, gt=0, lt=1)
    """Chance that a shown item which nothing predicted is what the user wants."""
    min_score: float = Field(default=0.02, ge=0, lt=1)
    """Items that score below this, because they were shown and refused, are not returned."""
    personal_weight: float = Field(default=0.3, ge=0, le=1)
    """Share of the distance to 1 that an item gains if this user chose it for this query."""
    max_queries: int = Field(default=50_000, ge=1, le=10_000_000)
    """Queries remembered, and likewise slots, and likewise queries of users."""
    items_per_query: int = Field(default=100, ge=1, le=1000)
    """Items remembered for one query."""
    per_locale: bool = True
    """Whether a query is remembered for each locale too, beside all locales together."""
    neighbours: bool = True
    """Whether a query that little is known of borrows from queries of similar meaning."""
    neighbours_below: int = Field(default=5, ge=1, le=1000)
    """Look for such queries only if there are fewer hits than this; encoding takes time."""
    neighbour_queries: int = Field(default=5_000, ge=1, le=100_000)
    """Queries that worked whose vectors are kept."""
    neighbour_similarity: float = Field(default=0.75, gt=0, le=1)
    """Cosine from which queries count as similar."""

    @property
    def learning_rules(self) -> dict[str, Any]:
        """The settings that what is learned depends on; others only change how it is used."""
        return self.model_dump(
            include={
                "half_life_days",
                "max_queries",
                "items_per_query",
                "per_locale",
                "neighbours",
                "neighbour_queries",
            }
        )
