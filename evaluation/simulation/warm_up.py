"""Before policies are compared, the mesh lives for a while: it is searched, clicked and trained.

Some days of traffic from training needs alone, served by exploring plans, are written to a real
log as decisions and feedback. The real projections (memory, graph, exploration, history, ranker
statistics) and the real ranker training read it. Then the candidates of every need are looked up
once more and frozen, so that all policies meet the same world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.collections.collection import Collection, Topic
from evaluation.simulation import traffic
from evaluation.simulation.clicks import ClickModel, PositionBased, attraction
from evaluation.simulation.pages import Page, Pages, Question, ideal_dcg
from evaluation.simulation.world import World
from forage import wire
from forage.catalog.item import Item
from forage.catalog.schema import Schema
from forage.log import Event, Stream
from forage.retrieval import Query, Retrieval, UserContext
from forage.v1 import candidate_pb2, decision_pb2, feedback_service_pb2, plan_pb2
from orchestrator.settings import OrchestratorSettings
from ranker.evidence import Evidence
from ranker.features import FeatureList
from ranker.model import KIND, RankingModel
from ranker.training import train

NOW = 1_700_000_000.0
"""When the simulated mesh opens, seconds since the epoch."""
DAY = 86_400.0
PLAY, CLICK = "play", "click"
Progress = Callable[[str, float], None]
_BETWEEN_LIKES_S = 300.0
"""People who rate films rate many in one sitting."""
_PLANS = (
    (100, 100, 100, 100, 100),
    (100, 100, 100, 100, 100),
    (50, 25, 25, 10, 0),
    (50, 0, 50, 25, 10),
    (0, 100, 25, 25, 10),
)


@dataclass(frozen=True, slots=True)
class WarmUp:
    """How long the mesh lives before anything is compared."""

    days: int = 2
    """After each, candidates are looked up again and the ranker is trained."""
    searches: int = 2_000
    """Searches per day."""
    held_out: float = 0.35
    """Share of the groups that are asked only afterwards."""
    mix: traffic.Mix = field(default_factory=traffic.Mix)
    noise: float = 0.02
    seed: int = 1


@dataclass(slots=True)
class Scene:
    """A frozen world: every need with its candidates, and the trained model."""

    questions: list[Question]
    schema: Schema
    model: bytes

    def pages(self, settings: OrchestratorSettings) -> Pages:
        """Return what any plan shows, ranked by the trained model."""
        features = FeatureList(self.schema, tuple(settings.generators))
        model = RankingModel.load(self.model) if self.model else None
        return Pages(settings, features, model, title=self.schema.title)

    def topics(self) -> list[Topic]:
        """Return the needs' topics."""
        return [question.topic for question in self.questions]


def make_scene(
    world: World,
    collection: Collection,
    warm_up: WarmUp,
    progress: Progress,
    arrivals: Sequence[Item] = (),
) -> Scene:
    """Let the mesh live for some days of traffic, and freeze it.

    `arrivals` join the catalogue on the last day, after all training.
    """
    life = _Life(world, collection, warm_up, progress)
    for day in range(warm_up.days):
        life.look_up(day)
        life.live(day)
        life.train()
    if arrivals:
        world.upsert(arrivals, time=NOW + warm_up.days * DAY)
    life.look_up(warm_up.days)
    return Scene(life.questions, collection.schema, life.model.save() if life.model else b"")


class _Life:
    """The state of the days: questions, the model in use, and what was found so far."""

    def __init__(
        self, world: World, collection: Collection, warm_up: WarmUp, progress: Progress
    ) -> None:
        self._world = world
        self._judgments = collection.judgments
        self._warm_up = warm_up
        self._progress = progress
        self._topics = collection.topics
        self._held_out = traffic.held_out_groups(
            self._topics, share=warm_up.held_out, seed=warm_up.seed
        )
        self._unchanging: dict[str, dict[str, Retrieval]] = {}
        self._rng = np.random.default_rng((warm_up.seed, 2))
        self.questions: list[Question] = []
        self.model: RankingModel | None = None
        teach_histories(world, self._topics, self._held_out)

    def look_up(self, day: int) -> None:
        """Ask every generator for every need, as things are on this day."""
        self.questions = []
        for number, topic in enumerate(self._topics):
            found = self._question(topic, NOW + day * DAY)
            self.questions.append(found)
            self._progress(f"candidates, day {day}", (number + 1) / len(self._topics))

    def _question(self, topic: Topic, time: float) -> Question:
        world = self._world
        query = understand(world, topic, time)
        dynamic = dict.fromkeys(("graph", "memory", "exploration"), 100)
        if topic.query_id not in self._unchanging:
            fixed = dict.fromkeys(("lexical", "semantic"), 100)
            self._unchanging[topic.query_id] = world.retrieve(query, fixed)
        found = self._unchanging[topic.query_id] | world.retrieve(query, dynamic)
        return question(
            world,
            topic,
            query,
            found,
            self._judgments[topic.query_id],
            held_out=(topic.group or topic.query_id) in self._held_out,
        )

    def live(self, day: int) -> None:
        """Serve a day's searches and let users click."""
        warm_up = self._warm_up
        allowed = np.array([not q.held_out for q in self.questions])
        arriving = traffic.stream(
            self._topics,
            allowed,
            warm_up.searches,
            start=NOW + day * DAY,
            mix=warm_up.mix,
            seed=warm_up.seed + 100 + day,
            order_seed=warm_up.seed,
        )
        world = self._world
        title = world.schema.title
        pages = Pages(world.settings, world.mesh.features, self.model, title=title)
        recorder = Recorder(self._world, pages, PositionBased(), noise=warm_up.noise)
        for number, (index, time) in enumerate(
            zip(arriving.questions.tolist(), arriving.times.tolist(), strict=True)
        ):
            plan = _PLANS[int(self._rng.integers(len(_PLANS)))]
            recorder.search(self.questions[index], plan, f"warm-{day}-{number}", time, self._rng)
            self._progress(f"searches, day {day}", (number + 1) / len(arriving))
        recorder.flush()

    def train(self) -> None:
        """Train the ranker on all days so far, by the rules of `forage train`."""
        mesh = self._world.mesh
        registry = mesh.runtime.registry
        train(mesh.log, registry, mesh.settings.ranker, seed=self._warm_up.seed)
        current = registry.current(KIND)
        if current is not None:
            self.model = RankingModel.load(registry.load(KIND, current.version)[1])


class Recorder:
    """Serves searches from frozen candidates and writes what happened to the log."""

    def __init__(
        self, world: World, pages: Pages, users: ClickModel, *, noise: float, shuffle: float = 0.2
    ) -> None:
        """Shuffle a page with probability `shuffle`, so that positions say little."""
        self._world = world
        self._pages = pages
        self._users = users
        self._noise = noise
        self._shuffle = shuffle
        self._events: list[Event] = []

    def search(
        self,
        asked: Question,
        fan_outs: tuple[int, ...],
        request_id: str,
        time: float,
        rng: np.random.Generator,
    ) -> Page:
        """Serve one search, let the user click, and return the page."""
        page = self._pages.page(asked, fan_outs)
        shown = page.shown
        if rng.random() < self._shuffle:
            shown = rng.permutation(shown)
        decision = self._decision(asked, fan_outs, shown, request_id, time)
        self._events.append(Event(Stream.DECISIONS, request_id, decision.SerializeToString(), time))
        chance = attraction(asked.grades[shown], noise=self._noise)
        for place in self._users.draw(chance, rng).tolist():
            kind = PLAY if rng.random() < chance[place] else CLICK
            item_id = asked.item_ids[shown[place]]
            self._events.append(feedback_event(request_id, item_id, kind, time + 1))
        return page

    def flush(self) -> None:
        """Write to the log, and let every projection see it."""
        self._world.append(self._events)
        self._events = []

    def _decision(
        self,
        asked: Question,
        fan_outs: tuple[int, ...],
        shown: np.ndarray,
        request_id: str,
        time: float,
    ) -> decision_pb2.Decision:
        ranks = asked.fan_out_ranks(fan_outs)
        order, fused = self._pages.fuse(asked, ranks)
        matrix = self._pages.matrix(asked, ranks, fan_outs, order, fused[order])
        row_of = {place: row for row, place in enumerate(order.tolist())}
        message = wire.query_to_proto(asked.query)
        message.time.CopyFrom(wire.timestamp(time))
        return decision_pb2.Decision(
            request_id=request_id,
            time=wire.timestamp(time),
            query=message,
            feature_names=self._world.mesh.features.names,
            feature_version=self._world.mesh.features.version,
            outcomes=[
                plan_pb2.GeneratorOutcome(
                    generator=name,
                    fan_out=k,
                    returned=int((ranks[g] > 0).sum()),
                    status=plan_pb2.OUTCOME_STATUS_ANSWERED,
                )
                for g, (name, k) in enumerate(zip(self._pages.generators, fan_outs, strict=True))
                if k
            ],
            displayed=[
                decision_pb2.DisplayedItem(
                    item_id=asked.item_ids[place],
                    position=position,
                    features=matrix[row_of[place]].tolist(),
                    provenance=list(_provenance(asked, ranks, place, self._pages.generators)),
                )
                for position, place in enumerate(shown.tolist(), 1)
            ],
        )


def _provenance(
    asked: Question, ranks: np.ndarray, place: int, generators: Sequence[str]
) -> Iterator[candidate_pb2.Provenance]:
    for g, name in enumerate(generators):
        if rank := int(ranks[g, place]):
            yield candidate_pb2.Provenance(
                generator=name, rank=rank, score=float(asked.scores[g, place])
            )


def feedback_event(request_id: str, item_id: str, kind: str, time: float) -> Event:
    """Return the event of one act; a result of a search is acted on once."""
    event_id = f"{request_id}/{item_id}"
    record = feedback_service_pb2.FeedbackEvent(
        event_id=event_id,
        request_id=request_id,
        item_id=item_id,
        kind=feedback_service_pb2.FeedbackKind.Value(f"FEEDBACK_KIND_{kind.upper()}"),
        time=wire.timestamp(time),
    )
    return Event(Stream.FEEDBACK, event_id, record.SerializeToString(), time)


def teach_histories(world: World, topics: Sequence[Topic], held_out: frozenset[str]) -> None:
    """Write what the training users had liked before to the log: one search and like per film.

    Held-out users stay unknown; their history comes with their requests.
    """
    histories = {t.user_id: t.history for t in topics if t.history and t.group not in held_out}
    events: list[Event] = []
    for user_id, history in sorted(histories.items()):
        for age, item_id in enumerate(history):
            time = NOW - (age + 1) * _BETWEEN_LIKES_S
            request_id = f"history-{user_id}-{age}"
            user = UserContext(user_id)
            query = world.understand("", request_id=request_id, time=time, user=user)
            decision = decision_pb2.Decision(
                request_id=request_id,
                time=wire.timestamp(time),
                query=wire.query_to_proto(query),
                displayed=[decision_pb2.DisplayedItem(item_id=item_id, position=1)],
            )
            events.append(Event(Stream.DECISIONS, request_id, decision.SerializeToString(), time))
            events.append(feedback_event(request_id, item_id, "like", time + 1))
    events.sort(key=lambda event: event.time)
    world.append(events)


def understand(world: World, topic: Topic, time: float) -> Query:
    """Return the topic as the orchestrator would understand it."""
    return world.understand(
        topic.text,
        request_id=topic.query_id,
        time=time,
        user=UserContext(topic.user_id, topic.history) if topic.history else None,
        like_item_ids=topic.history[:1] if topic.kind == "next" else (),
    )


def question(
    world: World,
    topic: Topic,
    query: Query,
    found: Mapping[str, Retrieval],
    judgments: Mapping[str, int],
    *,
    held_out: bool,
) -> Question:
    """Freeze what the generators found for a need."""
    generators = tuple(world.settings.generators)
    item_ids = sorted({hit.item_id for retrieval in found.values() for hit in retrieval.hits})
    place_of = {item_id: place for place, item_id in enumerate(item_ids)}
    ranks = np.zeros((len(generators), len(item_ids)), np.int16)
    scores = np.zeros(ranks.shape)
    for g, name in enumerate(generators):
        for rank, hit in enumerate(found[name].hits if name in found else (), 1):
            place = place_of[hit.item_id]
            ranks[g, place], scores[g, place] = rank, hit.score
    fused = np.zeros(len(item_ids))
    evidence = Evidence(list(item_ids), fused, [], [], [], [], frozenset())
    return Question(
        topic=topic,
        query=query,
        held_out=held_out,
        item_ids=tuple(item_ids),
        ranks=ranks,
        scores=scores,
        features=world.mesh.extractor.matrix(query, evidence),
        neighbours=world.mesh.extractor.compare(item_ids),
        grades=np.array([judgments.get(item_id, 0) for item_id in item_ids], np.int64),
        ideal=ideal_dcg(list(judgments.values())),
        gain=float(sum(judgments.values())),
    )
