"""The formulas of docs/scaling.md: worked by hand, and against what was measured."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.laws import Law, Laws, deviations, milvus_bytes, milvus_ms, service_figures
from bench.scaling_report import laid_over, traffic
from bench.sizing import Demand, Measured

GROWING = ("lexical", "graph", "memory", "exploration")


def measured(**overrides):
    laws = Laws(
        memory_mb=Law(100.0, 0.001),
        index_cpu_s=Law(1.0, 0.001),
        call_cpu_ms=Law(2.0, 1e-6),
        disk_mb=Law(0.0, 0.001),
        start_cpu_s=Law(1.0, 0.0001),
    )
    names = ("orchestrator", "lexical", "semantic", "graph", "memory", "exploration", "ranker")
    values = {
        "laws": dict.fromkeys(names, laws),
        "calls": {"lexical": 0.5, "semantic": 0.1, "orchestrator": 1.0, "ranker": 1.0},
        "follow_ms": {"memory": 0.1},
        "waiting_kb": 40.0,
        "decision_bytes": 10_000,
        "feedback_bytes": 200,
        "log_bytes_per_item": 700,
    }
    return Measured(**(values | overrides))


def need(plan, service):
    return next(n for n in plan.needs if n.service == service)


def test_a_line_through_points_on_a_line_is_that_line():
    law = Law.fit({10: 5 + 0.2 * 10, 1_000: 5 + 0.2 * 1_000, 9_000: 5 + 0.2 * 9_000})
    assert (law.base, law.slope) == pytest.approx((5, 0.2))


def test_what_shrinks_with_the_catalog_is_taken_to_be_constant():
    law = Law.fit({10: 4.0, 1_000: 2.0})
    assert law.slope == 0
    assert 2 < law.base < 4


def test_a_line_never_starts_below_zero():
    law = Law.fit({10: 1.0, 1_000: 300.0})
    assert law.base == 0
    assert 0.1 < law.slope < 0.3


@given(st.dictionaries(st.integers(1, 10**6), st.floats(0.01, 1e5), min_size=1, max_size=5))
@settings(max_examples=100)
def test_fitted_lines_neither_start_below_zero_nor_fall(points):
    law = Law.fit(points)
    assert law.base >= 0
    assert law.slope >= 0


def test_a_plan_follows_the_formulas():
    plan = measured().plan(Demand(items=1e6, searches=1_000, headroom=0.5))
    lexical = need(plan, "lexical")
    # 500 calls of 2 + 1 ms are 1.5 cores; at half use, 3 processes of 100 + 1,000 MB.
    assert lexical.calls == 500
    assert lexical.call_ms == pytest.approx(3.0)
    assert lexical.cores == pytest.approx(1.5)
    assert (lexical.shards, lexical.replicas) == (1, 3)
    assert lexical.memory_gb == pytest.approx(3 * 1_100 / 1024)


def test_learning_takes_its_share_of_every_replica():
    plan = measured(calls={"memory": 1.0, "semantic": 0.0}).plan(
        Demand(items=1e6, searches=1_000, headroom=0.5)
    )
    memory = need(plan, "memory")
    # 1,000 searches of .1 ms are a tenth of a core; 3 cores of calls share what is left, .4 each.
    assert memory.follow_cores == pytest.approx(0.1)
    assert memory.replicas == math.ceil(3 / 0.4)
    assert memory.cores == pytest.approx(3 + 8 * 0.1)


def test_shards_hold_less_and_are_all_asked():
    plan = measured().plan(Demand(items=1e6, searches=1_000, headroom=0.5, shard_items=250_000))
    lexical = need(plan, "lexical")
    assert lexical.shards == 4
    assert lexical.process_gb == pytest.approx(350 / 1024)
    assert lexical.cores == pytest.approx(4 * 500 * 2.25 / 1e3)


def test_searches_that_wait_for_feedback_take_the_orchestrators_memory():
    plan = measured().plan(Demand(items=1e6, searches=1_000))
    # 10,000 searches of the last ten seconds, 40 KB each.
    waiting = need(plan, "orchestrator").process_gb - need(plan, "ranker").process_gb
    assert waiting == pytest.approx(10_000 * 40 / 2**20)


def test_a_routed_call_asks_one_shard_and_a_flat_one_takes_no_longer():
    demand = Demand(items=1e6, searches=1_000, headroom=0.5)
    plan = measured().plan(demand.changed(shard_items=250_000, partitions=4))
    # 2 ms and .1 for a hundred thousand items; all four shards of lexical, one of the ranker.
    assert need(plan, "lexical").cores == pytest.approx(4 * 500 * 2.1 / 1e3)
    assert need(plan, "ranker").cores == pytest.approx(1_000 * 2.1 / 1e3)
    assert need(plan, "memory").follow_cores == pytest.approx(0.1 / 4)


def test_the_log_grows_with_searches_and_feedback():
    plan = measured().plan(Demand(items=1e6, searches=100, feedback=0.5, day=1.0))
    assert plan.log_mb_s == pytest.approx(100 * (10_000 + 100) / 2**20)
    assert plan.log_gb_a_day == pytest.approx(plan.log_mb_s * 86_400 / 1_024)
    assert plan.catalog_gb == pytest.approx(700e6 / 2**30)


def test_what_cannot_be_done_today_is_said():
    plan = measured().plan(Demand(items=1e9, searches=1e5))
    assert "lexical: one process needs 977 GB, and it cannot be divided today" in plan.problems
    assert any("given up after 250 ms" in problem for problem in plan.problems)
    assert any("learning from all the traffic" in problem for problem in plan.problems)
    assert plan.machines == 0
    assert need(plan, "memory").replicas == 0
    assert measured().plan(Demand(items=1e6, searches=100)).problems == ()


def test_vectors_take_less_than_five_kilobytes_each():
    # 1,536 of the vector, 282 of the graph, 220 of the rest; more than twice that for the node.
    assert milvus_bytes(1) == pytest.approx((1_536 + 281.6 + 220) * 2.3)


def test_a_vector_search_asks_every_segment():
    # A gigabyte holds 699,050 vectors of 384 numbers.
    assert milvus_ms(699_000) == pytest.approx(4.2)
    assert milvus_ms(1_400_000) == pytest.approx(12.6)


def test_figures_of_a_later_run_are_laid_over_those_that_were_there():
    before = {"10000": {"import": {"s": 1}, "mesh": {"s": 2}}, "1000000": {"log": {"s": 3}}}
    found = {"10000": {"mesh": {"s": 4}}, "300000": {"log": {"s": 5}}}
    merged = laid_over(before, found)
    assert list(merged) == ["10000", "300000", "1000000"]
    assert merged["10000"] == {"import": {"s": 1}, "mesh": {"s": 4}}
    assert merged["300000"] == found["300000"]
    assert merged["1000000"] == before["1000000"]


def test_shares_of_calls_are_not_taken_of_a_mesh_with_invented_vectors(figures):
    sizes = figures["sizes"]
    invented = {**sizes["10000"]["mesh"], "calls": {"semantic": 0.0}}
    assert traffic({**sizes, "2000000": {"mesh invented": invented}}) == traffic(sizes)


@pytest.fixture(scope="module")
def figures(pytestconfig):
    return json.loads((pytestconfig.rootpath / "docs/scaling/figures.json").read_text())


def test_the_laws_of_memory_give_what_was_measured(figures):
    found = deviations(figures)
    assert len(found) >= 10
    assert all(0.75 < factor < 1.35 for factor in found.values()), found


def points_of(figures, service, figure):
    """Return a figure of a service by the number of items, where it was measured."""
    found = {
        float(items): service_figures(stages, service).get(figure)
        for items, stages in figures["sizes"].items()
    }
    return {items: value for items, value in found.items() if value}


@pytest.mark.parametrize("figure", ["pss_mb", "index_cpu_s"])
@pytest.mark.parametrize("service", GROWING)
def test_a_line_through_the_smaller_sizes_foretells_the_largest(figures, service, figure):
    points = points_of(figures, service, figure)
    largest = max(points)
    law = Law.fit({items: value for items, value in points.items() if items < largest})
    assert law.at(largest) == pytest.approx(points[largest], rel=0.3)


@pytest.mark.parametrize("service", GROWING)
def test_the_laws_of_calls_give_what_was_measured_at_the_largest_size(figures, service):
    points = points_of(figures, service, "loaded_cpu_ms")
    largest = max(points)
    assert Law.fit(points).at(largest) == pytest.approx(points[largest], rel=0.3)


@pytest.mark.parametrize(("items", "searches"), [(1e4, 10), (1e7, 1e3), (1e8, 1e4), (1e9, 1e5)])
def test_more_of_anything_never_needs_less(figures, items, searches):
    laws = Measured.of(figures)
    plan = laws.plan(Demand(items=items, searches=searches))
    larger = laws.plan(Demand(items=2 * items, searches=searches))
    busier = laws.plan(Demand(items=items, searches=2 * searches))
    assert set(plan.problems) <= set(busier.problems) or busier.machines >= plan.machines
    for mine, theirs in zip(plan.needs, larger.needs, strict=True):
        assert theirs.process_gb >= mine.process_gb
        assert theirs.call_ms >= mine.call_ms
    assert busier.log_gb_a_day == pytest.approx(2 * plan.log_gb_a_day)
