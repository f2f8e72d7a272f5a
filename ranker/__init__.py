"""The ranker: orders the merged candidates of a search with a model learned from feedback.

It follows the log twice, for what an item says (`ranker.catalog`) and for how it fared
(`ranker.engagement`), and the registry for the current model. `ranker.commands:train` makes the
models.
"""

from __future__ import annotations

from forage.log.follower import Follower
from forage.log.snapshots import IndexSnapshots
from forage.services import Assembly, Runtime, Service
from ranker.settings import RankerSettings


def build(settings: RankerSettings, runtime: Runtime) -> Assembly:
    """Assemble the service."""
    # XGBoost takes half a second and 60 MB to import, which describing the service need not.
    from ranker.catalog import ItemCards
    from ranker.extraction import FeatureExtractor
    from ranker.features import FeatureList
    from ranker.reloading import Reloader, ServedModel
    from ranker.servicer import GRPC_SERVICE, RankerServicer
    from ranker.statistics import EngagementStatistics

    features = FeatureList(runtime.schema, settings.generators)
    cards = ItemCards(runtime.schema, settings.data_dir, language=settings.language)
    statistics = EngagementStatistics(
        runtime.log, settings.statistics, settings.feedback, settings.data_dir
    )
    extractor = FeatureExtractor(
        features,
        runtime.schema,
        cards,
        statistics,
        half_life_days=settings.statistics.half_life_days,
    )
    snapshots = IndexSnapshots.open(settings, runtime.log, runtime.registry, runtime.lease)
    follower = Follower(runtime.log, [cards, statistics], snapshots=snapshots)
    served = ServedModel(runtime.registry, features)
    reloader = Reloader(served, runtime.in_thread, interval_s=settings.reload_interval_ms / 1000)
    servicer = RankerServicer(
        runtime,
        follower,
        features,
        cards,
        statistics,
        extractor,
        served,
        max_candidates=settings.max_candidates,
    )
    return Assembly(
        servicers=servicer.add_to,
        grpc_services=(GRPC_SERVICE,),
        follower=follower,
        start=reloader.start,
        stop=reloader.stop,
    )


SERVICE = Service(
    name="ranker",
    summary="Orders the merged candidates with a model learned from feedback.",
    settings=RankerSettings,
    build=build,
)
