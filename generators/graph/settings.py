"""What the graph generator can be told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from forage.settings import GeneratorSettings, Settings

EdgeWeight = Annotated[float, Field(ge=0, le=100)]


class WalkSettings(Settings):
    """The random walk."""

    restart: float = Field(default=0.25, gt=0, lt=1)
    """Chance to return to the seeds at each step: higher stays nearer."""
    epsilon: float = Field(default=3e-5, gt=0, le=0.1)
    """Mass per unit of edge weight below which a node is not walked on from."""
    max_rounds: int = Field(default=6, ge=1, le=100)
    """Steps away from the seeds at most."""
    hub_discount: float = Field(default=0.5, ge=0, le=1)
    """Scores are divided by a node's total edge weight to this power; 0.5 is the symmetric
    normalisation, 0 favours hubs such as countries."""


class CoEngagementSettings(Settings):
    """Edges learned from feedback."""

    half_life_days: float = Field(default=30.0, gt=0, le=3650)
    """After so many days an engagement counts half."""
    window_s: float = Field(default=3_600.0, gt=0, le=30 * 86_400)
    """Items that one user engages with within this time become neighbours."""
    window_items: int = Field(default=10, ge=1, le=100)
    """At most so many of them."""
    item_weight: EdgeWeight = 1.0
    """Weight of two items having been chosen by one user, next to catalogue relations."""
    query_weight: EdgeWeight = 1.0
    """Weight of an item having been chosen for a query."""
    max_edges: int = Field(default=200_000, ge=100, le=10_000_000)
    """Edges kept; the weakest go first."""
    max_users: int = Field(default=20_000, ge=1, le=10_000_000)
    """Users whose open window is kept."""


class GraphSettings(GeneratorSettings):
    """Settings of the graph service."""

    walk: WalkSettings = WalkSettings()
    engagement: CoEngagementSettings = CoEngagementSettings()
    edge_weights: dict[str, EdgeWeight] = Field(default_factory=dict)
    """Weight of each attribute's relations; 1 where it is not given."""
    query_weight: float = Field(default=0.5, ge=0, le=100)
    """Weight of what was chosen for this query before, against 1 for what the query names."""
    like_weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of example items."""
    history_weight: float = Field(default=0.15, ge=0, le=100)
    """Weight of what the user engaged with lately."""
    together_weight: float = Field(default=1.0, ge=0, le=100)
    """Weight of what others chose together with the examples and the user's history; at most
    that of the history itself where the query names something."""
    history_decay: float = Field(default=0.95, gt=0, le=1)
    """Each older item of the history counts this much of the one after it."""
    history_items: int = Field(default=30, ge=1, le=100)
    """Items of the history that count, and example items that count."""
    popularity_weight: float = Field(default=0.3, ge=0, le=10)
    """An item of popularity 1 scores this much more, relatively, than one of popularity 0."""
