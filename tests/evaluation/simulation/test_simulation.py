"""The whole simulation, reduced, over an invented catalogue: real parts, done in seconds."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation.simulation.arrivals import Arrivals, MemoryLog
from evaluation.simulation.building import StudySettings, build
from evaluation.simulation.clicks import CLICK_MODELS
from evaluation.simulation.comparison import Comparer, ComparisonSettings, clustered
from evaluation.simulation.contenders import (
    StaticContender,
    best_mixture,
    cost_of,
    coverage,
    everything,
)
from evaluation.simulation.drift import without
from evaluation.simulation.invented import invented_collection
from evaluation.simulation.oracle import ContextualOracle
from evaluation.simulation.pages import PAGE, Pages
from evaluation.simulation.pictures import draw
from evaluation.simulation.replay import Change, Replay, Users
from evaluation.simulation.results import comparison_findings, rows, to_json
from evaluation.simulation.warm_up import NOW, WarmUp, make_scene, understand
from evaluation.simulation.world import World
from forage.log import Event, Stream, Topic
from orchestrator import fusion
from orchestrator.settings import OrchestratorSettings
from ranker.evidence import Evidence

WARM_UP = WarmUp(days=1, searches=250)
SETTINGS = OrchestratorSettings()
PLAN = (25, 10, 0, 50, 10)


@pytest.fixture(scope="module")
def living(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulation")
    collection = invented_collection(films=90, needs=9)
    with World(folder / "scene", collection) as world:
        yield world, make_scene(world, collection, WARM_UP, lambda stage, share: None)


@pytest.fixture(scope="module")
def scene(living):
    return living[1]


@pytest.fixture(scope="module")
def comparer(scene):
    options = ComparisonSettings(
        requests=200,
        seeds=(1,),
        hindsight_plans=6,
        hindsight_requests=40,
        arms=6,
        oracle_pages=10,
    )
    return Comparer(scene, SETTINGS, WARM_UP, options)


def test_scenes_that_are_built_at_once_do_not_disturb_each_other(tmp_path):
    collection = invented_collection(films=30, needs=3)
    studies = StudySettings(
        memory_queries=1, memory_searches=3, new_items=1, exploration_searches=10
    )
    between = []

    def built(seed, progress):
        warm_up = WarmUp(days=1, searches=20, seed=seed)
        return build(tmp_path, collection, None, warm_up, studies, progress)

    def meanwhile(stage, share):
        if not between:
            between.append(built(2, lambda stage, share: None))

    one = built(1, meanwhile)

    assert len(one.scene.questions) == len(between[0].scene.questions) > 0
    # Nothing is left of the meshes but their vectors and the scenes.
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_cut_list_is_what_the_generators_answer_when_asked_for_less(living):
    world, scene = living
    for question in scene.questions[::9]:
        query = replace(
            understand(world, question.topic, question.query.time), seed=question.query.seed
        )
        found = world.retrieve(query, {"lexical": 10})["lexical"].hits
        ranks = question.fan_out_ranks((10, 0, 0, 0, 0))[0]
        cut = {question.item_ids[i]: int(r) for i, r in enumerate(ranks) if r}

        assert cut == {hit.item_id: rank for rank, hit in enumerate(found, 1)}


def test_replayed_features_are_those_of_the_ranker(living):
    world, scene = living
    pages = scene.pages(SETTINGS)
    for question in scene.questions[::9]:
        ranks = question.fan_out_ranks(PLAN)
        order, fused = pages.fuse(question, ranks)
        rows, columns = np.nonzero(ranks[:, order].T)
        evidence = Evidence(
            item_ids=[question.item_ids[i] for i in order],
            fused=fused[order],
            rows=rows.tolist(),
            generators=[pages.generators[g] for g in columns],
            scores=question.scores[columns, order[rows]].tolist(),
            ranks=ranks[columns, order[rows]].tolist(),
            answered=frozenset(n for n, k in zip(pages.generators, PLAN, strict=True) if k),
        )
        replayed = pages.matrix(question, ranks, PLAN, order, fused[order])

        fresh = world.mesh.extractor.matrix(question.query, evidence)
        stable = [
            i for i, n in enumerate(world.mesh.features.names) if not n.startswith("engagement.")
        ]
        # A standardised column is computed from rounded values here.
        assert np.allclose(replayed[:, stable], fresh[:, stable], 1e-4, 1e-5, equal_nan=True)


def test_replayed_fusion_is_the_orchestrators(living):
    world, scene = living
    pages = scene.pages(SETTINGS)
    weights = {name: target.hit_rate for name, target in SETTINGS.generators.items()}
    for question in scene.questions[::9]:
        found = world.retrieve(question.query, {"lexical": 50, "memory": 25})
        lists = {name: world.hits(retrieval) for name, retrieval in found.items()}
        fused = fusion.fuse(lists, weights, k=SETTINGS.fusion_k)
        ranks = np.zeros_like(question.ranks)
        place = {item_id: i for i, item_id in enumerate(question.item_ids)}
        if not all(c.item_id in place for c in fused):
            continue
        for candidate in fused:
            for proposal in candidate.provenance:
                g = pages.generators.index(proposal.generator)
                ranks[g, place[candidate.item_id]] = proposal.rank
        order, _ = pages.fuse(question, ranks)

        assert [question.item_ids[i] for i in order] == [c.item_id for c in fused]


def test_a_page_has_at_most_ten_items_and_knows_its_quality(scene):
    pages = scene.pages(SETTINGS)
    for question in scene.questions:
        page = pages.page(question, everything(SETTINGS))

        assert len(page.shown) <= PAGE
        assert 0 <= page.ndcg <= 1
        assert 0 <= page.covered <= 1 + 1e-9


@pytest.fixture(scope="module")
def comparison(comparer):
    return comparer.compare()


def test_the_curves_are_drawn_and_every_target_has_a_figure(comparison, tmp_path):
    draw(comparison, tmp_path)
    table, found = list(rows(comparison)), list(comparison_findings(comparison))

    names = {path.name for path in tmp_path.iterdir()}
    for curve in ("regret", "ndcg", "cost", "coverage_cost", "ndcg_cost", "arm_share", "fan_out"):
        assert {f"{curve}.png", f"{curve}.svg"} <= names
    assert {row.contender for row in table} == comparison.traces.keys()
    assert all(np.isfinite([f.value, f.low, f.high]).all() for f in found)
    assert json.loads(to_json(found, table, {}))["findings"]


def test_all_contenders_serve_the_same_requests_within_their_limits(comparison):
    wanted = {"thompson", "class oracle", "contextual oracle", "lints", "best mix"}
    assert wanted <= comparison.traces.keys()
    full = cost_of(SETTINGS, everything(SETTINGS))
    for traces in comparison.traces.values():
        trace = traces[0]
        assert len(trace.rewards) == 200
        assert (trace.costs <= full).all()
        assert ((trace.rewards >= 0) & (trace.rewards <= 1)).all()
    assert (comparison.traces["call everything"][0].engaged == 1).all()
    assert comparison.traces["thompson"][0].costs.mean() < 0.9 * full


def test_nobody_is_above_the_contextual_oracle_on_any_request(comparison):
    price = comparison.price
    (best,) = comparison.traces["contextual oracle"]
    for name, (trace,) in comparison.traces.items():
        assert (trace.net(price) <= best.net(price) + 1e-9).all(), name

    assert all(row.regret >= -1e-9 for row in rows(comparison))
    assert 0 < comparison.exact <= 1


@pytest.mark.parametrize("clicks", CLICK_MODELS.values(), ids=CLICK_MODELS)
def test_no_plan_keeps_more_than_it_promised(comparer, clicks):
    replay = Replay(comparer.pages, SETTINGS, Users(clicks), seed=1)
    oracle = ContextualOracle(comparer.pages, SETTINGS, replay, most_pages=20)
    plans = [p for p in itertools.product(SETTINGS.plan.fan_outs, repeat=5) if any(p)]
    for question in comparer.scene.questions[::12]:
        promised = oracle.promises(question)
        for number in range(0, len(plans), 97):
            assert oracle.net(question, plans[number]) <= promised[number] + 1e-9


def test_a_proven_best_plan_is_the_best_of_all(comparer):
    plan = SETTINGS.plan.model_copy(update={"fan_outs": (0, 25)})
    settings = SETTINGS.model_copy(update={"plan": plan})
    replay = Replay(comparer.pages, settings, Users(), seed=1)
    oracle = ContextualOracle(comparer.pages, settings, replay, most_pages=31)
    plans = [p for p in itertools.product((0, 25), repeat=5) if any(p)]
    for question in comparer.scene.questions[::12]:
        best = oracle.best(question)

        assert oracle.net(question, best) == max(oracle.net(question, p) for p in plans)
    assert oracle.exact == 1


@pytest.mark.parametrize("clicks", ["position", "cascade", "dbn"])
def test_planner_and_learner_run_on_any_clicks_with_noise_and_delay(comparer, clicks):
    users = Users(CLICK_MODELS[clicks], noise=0.1, delay_s=60.0)
    contender = comparer.policy("thompson")
    before = contender.snapshot()
    replay = Replay(comparer.pages, SETTINGS, users, seed=1)

    trace = replay.run(contender, comparer.stream(1, 120), [Change(0, comparer.scene.questions)])

    assert len(trace.rewards) == 120
    assert contender.snapshot().hazard.labels.sum() > before.hazard.labels.sum()


def test_feedback_arrives_later_and_out_of_order_but_its_search_at_once():
    log = MemoryLog()
    arrivals = Arrivals(log)
    for number, delay in enumerate([5.0, 1.0]):
        arrivals.add(number, Event(Stream.DECISIONS, f"d{number}", b"", number))
        arrivals.add(number + delay, Event(Stream.FEEDBACK, f"f{number}", b"", number + delay))

    first, later = arrivals.until(2.5), arrivals.until(9.0)

    assert [r.key for r in first] == ["d0", "d1", "f1"]
    assert [r.key for r in later] == ["f0"]
    assert [r.sequence for r in (*first, *later)] == [1, 2, 3, 4]
    assert log.get(Stream.DECISIONS, "d0") == first[0]
    assert log.get(Stream.DECISIONS, "d9") is None
    assert log.read(Topic.INTERACTIONS, 1, 2) == first[1:]
    assert log.head(Topic.INTERACTIONS) == 4
    assert not log.wait(Topic.INTERACTIONS, 4, 0.0)


def test_delay_and_noise_change_what_is_learned_and_nothing_else_does(comparer):
    def plans(users: Users):
        replay = Replay(comparer.pages, SETTINGS, users, seed=1)
        world = [Change(0, comparer.scene.questions)]
        return replay.run(comparer.policy("thompson"), comparer.stream(1, 120), world).fan_outs

    prompt, late = plans(Users()), plans(Users(delay_s=1e9))

    assert (plans(Users()) == prompt).all()
    assert (prompt != late).any()


def test_a_run_is_repeated_exactly(comparer):
    def once():
        world = [Change(0, comparer.scene.questions)]
        return comparer.replay(1).run(comparer.policy("thompson"), comparer.stream(1, 120), world)

    first, second = once(), once()

    assert (first.fan_outs == second.fan_outs).all()
    assert (first.rewards == second.rewards).all()


@pytest.mark.parametrize("library", ["vowpal", "mabwiser"])
def test_peers_never_choose_a_masked_generator(comparer, library):
    plans = [(50, 0, 0, 0, 0), (0, 0, 0, 25, 0), (50, 0, 25, 25, 0)]
    if library == "vowpal":
        pytest.importorskip("vowpalwabbit", reason="`make compare` installs the peers")
        from evaluation.peers.vowpal import VowpalContender

        peer = VowpalContender(SETTINGS, plans, exploration="--squarecb", name="p", seed=1)
    else:
        pytest.importorskip("mabwiser", reason="`make compare` installs the peers")
        from evaluation.peers.mabwiser import MabwiserContender

        peer = MabwiserContender(SETTINGS, plans, policy="LinUCB", alpha=0.5, name="p", seed=1)
    world = [Change(0, comparer.scene.questions, {"lexical": "DISABLED"})]

    trace = comparer.replay(1).run(peer, comparer.stream(1, 80), world)

    assert (trace.fan_outs[:, 0] == 0).all()


def test_a_broken_generator_finds_nothing_and_the_others_go_on(scene):
    pages = scene.pages(SETTINGS)
    broken = without(scene.questions, [0])

    alone = [pages.page(q, (100, 0, 0, 0, 0)) for q in broken]

    assert all(len(page.shown) == 0 for page in alone)
    assert any(len(pages.page(q, (0, 0, 0, 100, 0)).shown) for q in broken)


def test_coverage_of_plans_agrees_with_their_pages(comparer):
    scene, pages = comparer.scene, comparer.pages
    plans = [(10, 0, 0, 0, 0), (0, 0, 25, 0, 0), (100, 100, 100, 100, 100)]
    weights = np.arange(1, len(scene.questions) + 1, dtype=float)

    fast = coverage(plans, scene.questions, weights, SETTINGS.plan.fan_outs)

    slow = [
        np.average([pages.page(q, plan).covered for q in scene.questions], weights=weights)
        for plan in plans
    ]
    assert fast.tolist() == pytest.approx(slow)


def test_the_best_mixture_lies_on_the_hull_at_the_budget():
    places, chances = best_mixture(np.array([2.0, 4.0, 8.0]), np.array([0.2, 0.3, 0.9]), 5.0)

    # Half of each of the ends is worth more than any mixture with the middle.
    assert places == [0, 2]
    assert chances == pytest.approx([0.5, 0.5])


def test_intervals_resample_needs_and_not_requests():
    rng = np.random.default_rng(1)
    repeated = clustered([np.repeat([0.0, 1.0], 500)], [np.repeat([0, 1], 500)], rng)

    assert (repeated.low, repeated.high) == (0.0, 1.0)
    assert repeated.queries == 2


def test_the_pages_of_another_plan_are_not_mixed_up(scene):
    pages: Pages = scene.pages(SETTINGS)
    question = scene.questions[0]
    small = pages.page(question, (10, 0, 0, 0, 0))
    large = pages.page(question, (100, 100, 100, 100, 100))

    assert small.candidates <= 10 < large.candidates
    assert StaticContender(SETTINGS, PLAN, name="s").fan_outs == PLAN
    assert question.query.time >= NOW
