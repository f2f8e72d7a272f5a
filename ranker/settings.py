"""What the ranker can be told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from forage.settings import ServiceSettings, Settings

GeneratorName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class StatisticsSettings(Settings):
    """Engagement counts, which become features. Change them and the projection is rebuilt."""

    half_life_days: float = Field(default=30.0, ge=0.05, le=3_650)
    """After how many days an impression or an engagement counts half."""
    prior_examinations: float = Field(default=20.0, gt=0, le=1e6)
    """Strength of the prior of an engagement rate, in examined impressions."""
    max_items: int = Field(default=200_000, ge=1_000, le=10_000_000)
    """Items (and item and query class pairs) with counts; the least examined half is dropped
    when there are more."""
    max_query_items: int = Field(default=200_000, ge=1_000, le=10_000_000)
    """Item and query pairs with counts, likewise."""
    max_users: int = Field(default=5_000, ge=1, le=1_000_000)
    """Users whose engagements are remembered; the longest inactive ones are forgotten."""
    history_length: int = Field(default=20, ge=1, le=200)
    """Engagements remembered per user."""


class BoostingSettings(Settings):
    """LambdaMART (Burges, 2010) as XGBoost's `rank:ndcg`."""

    trees: int = Field(default=150, ge=1, le=2_000)
    depth: int = Field(default=5, ge=1, le=12)
    eta: float = Field(default=0.1, gt=0, le=1)
    """Learning rate."""
    min_child_weight: float = Field(default=1.0, ge=0, le=1_000)
    reg_lambda: float = Field(default=2.0, ge=0, le=1_000)
    subsample: float = Field(default=0.8, gt=0, le=1)
    colsample: float = Field(default=0.5, gt=0, le=1)
    """Share of the features each tree may use."""
    monotone: bool = True
    """Whether more evidence that an item is wanted may never lower its score: the directions that
    `ranker.features` gives for its features."""
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of training; 0 uses every core. Serving always uses one per request."""


class TrainingSettings(Settings):
    """How a model is trained, judged and published."""

    min_decisions: int = Field(default=200, ge=20, le=1_000_000)
    """Searches with feedback below which training is refused."""
    max_decisions: int = Field(default=20_000, ge=100, le=1_000_000)
    """The newest searches with feedback that are used."""
    holdout_share: float = Field(default=0.2, ge=0.05, le=0.5)
    """The newest share of the searches, on which candidate and incumbent are compared."""
    inverse_propensity: bool = True
    """Weigh a feedback by 1 / P(its position is looked at)."""
    max_weight: float = Field(default=10.0, ge=1, le=1_000)
    """Where those weights are clipped."""
    position_feature: bool = True
    """Let the model see the position in training; it is 1 for every item in serving."""
    examination: Literal["configured", "estimated"] = "configured"
    """Take `feedback.examination_decay` as the position bias, or estimate it from exploration
    slots if there are enough of them."""
    min_exploration_clicks: int = Field(default=200, ge=10, le=1_000_000)
    """Engagements with exploration slots below which the configured value is used after all."""
    bootstrap_samples: int = Field(default=1_000, ge=100, le=100_000)
    max_regression: float = Field(default=0.02, ge=0, le=1)
    """How much worse nDCG@10 may be than the incumbent's at the interval's lower end."""
    keep_versions: int = Field(default=20, ge=2, le=10_000)
    """Models kept in the registry."""
    boosting: BoostingSettings = BoostingSettings()


class RankerSettings(ServiceSettings):
    """What the ranker can be told."""

    generators: tuple[GeneratorName, ...] = Field(
        default=("lexical", "semantic", "graph", "memory", "exploration"), min_length=1
    )
    """The generators that have features, as configured in the orchestrator. Changing the list
    changes the features, and so needs a new model."""
    language: str = Field(default="en", pattern=r"^[a-z]{2}$")
    """ISO 639-1 code of the catalogue's language, whose Snowball stemmer is used."""
    max_candidates: int = Field(default=1_000, ge=1, le=10_000)
    """Candidates accepted in one call."""
    reload_interval_ms: int = Field(default=500, ge=20, le=60_000)
    """How often to look for a new model."""
    statistics: StatisticsSettings = StatisticsSettings()
    training: TrainingSettings = TrainingSettings()
