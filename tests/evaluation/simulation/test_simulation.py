"""The whole simulation, reduced, over an invented catalogue: real parts, done in seconds."""

import json
from dataclasses import replace

import numpy as np
import pytest

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
from evaluation.simulation.pages import PAGE, Pages
from evaluation.simulation.pictures import draw
from evaluation.simulation.replay import Change
from evaluation.simulation.results import comparison_findings, rows, to_json
from evaluation.simulation.warm_up import NOW, WarmUp, make_scene, understand
from evaluation.simulation.world import World
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
    with World(folder, collection) as world:
        yield world, make_scene(world, collection, WARM_UP, lambda stage, share: None)


@pytest.fixture(scope="module")
def scene(living):
    return living[1]


@pytest.fixture(scope="module")
def comparer(scene):
    options = ComparisonSettings(
        requests=200, seeds=(1,), hindsight_plans=6, hindsight_requests=40, arms=6
    )
    return Comparer(scene, SETTINGS, WARM_UP, options)


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
    assert {"thompson", "class oracle", "lints", "best mix"} <= comparison.traces.keys()
    full = cost_of(SETTINGS, everything(SETTINGS))
    for traces in comparison.traces.values():
        trace = traces[0]
        assert len(trace.rewards) == 200
        assert (trace.costs <= full).all()
        assert ((trace.rewards >= 0) & (trace.rewards <= 1)).all()
    assert (comparison.traces["call everything"][0].engaged == 1).all()
    assert comparison.traces["thompson"][0].costs.mean() < 0.9 * full


def test_a_run_is_repeated_exactly(comparer):
    def once():
        world = [Change(0, comparer.scene.questions)]
        with comparer.policy("thompson") as contender:
            return comparer.replay(1).run(contender, comparer.stream(1, 120), world)

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
