"""Builds a scene: the warm-up, the studies that need the living mesh, and the cache of both."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

from evaluation.collections.collection import Collection
from evaluation.simulation.exploration_study import Explored, explore, new_items
from evaluation.simulation.memory_study import Learned, Predicted, learn, predicted
from evaluation.simulation.personal_study import Personal, personalise
from evaluation.simulation.warm_up import DAY, NOW, Progress, Scene, WarmUp, make_scene
from evaluation.simulation.world import World

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("generators", "ranker", "orchestrator/understanding", "forage/catalog")
_HERE = (
    "building",
    "clicks",
    "exploration_study",
    "memory_study",
    "pages",
    "personal_study",
    "traffic",
    "warm_up",
    "world",
)


@dataclass(frozen=True, slots=True)
class StudySettings:
    """How large the studies of the living mesh are."""

    memory_queries: int = 40
    memory_searches: int = 60
    new_items: int = 20
    exploration_searches: int = 6_000
    """At most: it ends when every new item has its ten impressions."""
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Built:
    """A scene, and what was studied while its mesh was alive."""

    scene: Scene
    predicted: Predicted
    learned: Learned
    personal: Personal
    explored: Explored


def build(
    folder: Path,
    collection: Collection,
    strangers: Collection | None,
    warm_up: WarmUp,
    studies: StudySettings,
    progress: Progress,
) -> Built:
    """Return what `folder` holds for these very data, settings and code; else make it.

    `strangers` are users who take no part in the traffic, for the study of histories.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scene-{_digest(collection, strangers, warm_up, studies)}.pickle"
    if path.is_file():
        built: Built = pickle.loads(path.read_bytes())
        return built
    with World(path.with_suffix(""), collection) as world:
        built = _live(world, collection, strangers, warm_up, studies, progress)
    path.write_bytes(pickle.dumps(built))
    return built


def _live(
    world: World,
    collection: Collection,
    strangers: Collection | None,
    warm_up: WarmUp,
    studies: StudySettings,
    progress: Progress,
) -> Built:
    wanted = {query_id: set(gains) for query_id, gains in collection.judgments.items()}
    before = predicted(world, collection.topics, wanted)
    last = NOW + warm_up.days * DAY
    arrivals = new_items(collection, studies.new_items, time=last, seed=studies.seed)
    scene = make_scene(world, collection, warm_up, progress, arrivals)
    end = NOW + (warm_up.days + 1) * DAY
    progress("studies", 0.0)
    personal = personalise(world, scene, collection, strangers, time=end)
    # Before memory, whose pages show new items too.
    explored = explore(
        world,
        scene,
        warm_up,
        fresh=[item.item_id for item in arrivals],
        searches=studies.exploration_searches,
        start=end,
        seed=studies.seed,
    )
    progress("studies", 0.6)
    learned = learn(
        world,
        scene,
        queries=studies.memory_queries,
        most_searches=studies.memory_searches,
        start=end + DAY,
        seed=studies.seed,
    )
    progress("studies", 1.0)
    for question in scene.questions:
        question.pages.clear()
    return Built(scene, before, learned, personal, explored)


def _digest(
    collection: Collection,
    strangers: Collection | None,
    warm_up: WarmUp,
    studies: StudySettings,
) -> str:
    """Return a name for all that the result depends on: data, settings and code."""
    found = hashlib.sha256(repr((warm_up, studies)).encode())
    for part in (collection, strangers):
        if part is not None:
            found.update(repr((part.topics, sorted(part.judgments.items()))).encode())
    found.update(repr([(i.item_id, i.attributes) for i in collection.items]).encode())
    files = [f for part in _CODE for f in (_ROOT / part).rglob("*.py")]
    here = [Path(__file__).parent / f"{name}.py" for name in _HERE]
    for file in sorted([*files, *here]):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
