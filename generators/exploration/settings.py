"""What the exploration generator can be told."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from forage.settings import GeneratorSettings


class ExplorationSettings(GeneratorSettings):
    """Settings of the exploration service."""

    half_life_days: float = Field(default=30.0, gt=0, le=3650)
    """After so many days an observation counts half, and the item is worth another look."""
    prior_strength: float = Field(default=4.0, gt=0, le=1000)
    """How many looks the prior is worth."""
    base_rate: float = Field(default=0.05, gt=0, lt=1)
    """Prior chance that a user who looks at the least popular item wants it."""
    popular_rate: float = Field(default=0.25, gt=0, lt=1)
    """The same for the most popular item."""
    optimistic: bool = True
    """Whether a draw below the posterior mean counts as the mean."""
    novelty_weight: float = Field(default=0.1, ge=0, le=10)
    """Bonus of an item that was never looked at; it shrinks with the root of the looks."""
    freshness_weight: float = Field(default=3.0, ge=0, le=10)
    """Bonus of the newest item while it is owed its first looks; 1 is worth a sure success."""
    first_looks: int = Field(default=10, ge=0, le=10_000)
    """How many times a new item is owed being shown; then it has no bonus for being new."""
    freshness_half_life_days: float = Field(default=365.0, gt=0, le=36_500)
    """An item older than the newest one by so many days gets half that bonus."""
    taste_weight: float = Field(default=0.5, ge=0, le=10)
    """How much likeness to the user's recent items adds to the relevance of an item."""
    pool_limit: int = Field(default=1_000, ge=1, le=100_000)
    """Items drawn for per request; larger pools are sampled first."""

    @property
    def learning_rules(self) -> dict[str, Any]:
        """The settings that what is learned depends on; others only change how it is used."""
        return self.model_dump(include={"half_life_days"})
