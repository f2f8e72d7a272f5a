import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.graph.walk import Adjacency, predecessors, soft_and, walk

EXACT = {"restart": 0.2, "epsilon": 1e-12, "max_rounds": 300}


def adjacency(size: int, *edges: tuple[int, int, float]) -> Adjacency:
    sources, targets, weights = zip(*edges, strict=True)
    return Adjacency(size, np.array(sources), np.array(targets), np.array(weights, float))


def from_node(graph: Adjacency, *nodes: int, **options: float):
    return walk(graph, np.array(nodes), np.ones(len(nodes)), **{**EXACT, **options})


def dense(graph: Adjacency) -> np.ndarray:
    matrix = np.zeros((graph.size, graph.size))
    for node in range(graph.size):
        _, targets, weights = graph.edges(np.array([node]))
        matrix[node, targets] = weights
    return matrix


@st.composite
def graphs(draw: st.DrawFn) -> Adjacency:
    size = draw(st.integers(2, 12))
    node = st.integers(0, size - 1)
    edges = draw(st.lists(st.tuples(node, node, st.floats(0.01, 5)), min_size=1, max_size=30))
    return adjacency(size, *edges)


def test_two_nodes_share_the_mass_as_worked_by_hand() -> None:
    # p0 = c + (1-c) p1 and p1 = (1-c) p0, hence p0 = 1 / (2 - c) with c = 0.2.
    graph = adjacency(2, (0, 1, 3.0))

    assert from_node(graph, 0).mass == pytest.approx([1 / 1.8, 0.8 / 1.8])


def test_parallel_edges_add_up_and_loops_are_dropped() -> None:
    graph = adjacency(3, (0, 1, 1.0), (1, 0, 2.0), (0, 0, 9.0), (0, 2, 1.0))

    assert graph.strength.tolist() == [4.0, 3.0, 1.0]
    assert graph.edge_count == 2


@settings(max_examples=80)
@given(graphs(), st.data())
def test_push_agrees_with_solving_the_linear_system(graph: Adjacency, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(np.flatnonzero(graph.strength > 0).tolist() or [-1]))
    if seed < 0:
        return
    matrix = dense(graph)
    transition = matrix / np.maximum(graph.strength, 1e-300)[:, None]
    start = np.eye(graph.size)[seed]
    exact = 0.2 * np.linalg.solve(np.eye(graph.size) - 0.8 * transition.T, start)

    assert from_node(graph, seed).mass == pytest.approx(exact, abs=1e-9)


@settings(max_examples=80)
@given(graphs(), st.floats(1e-6, 0.05))
def test_what_is_not_pushed_is_bounded_by_epsilon_times_strength(
    graph: Adjacency, epsilon: float
) -> None:
    rough = from_node(graph, 0, epsilon=epsilon).mass
    exact = from_node(graph, 0).mass

    assert rough.sum() <= 1 + 1e-12
    assert np.abs(exact - rough).sum() <= epsilon * graph.strength.sum() + 1e-9


@settings(max_examples=50)
@given(graphs())
def test_the_walk_is_symmetric_after_degree_normalisation(graph: Adjacency) -> None:
    connected = np.flatnonzero(graph.strength > 0)
    reached = {int(n): from_node(graph, int(n)).mass for n in connected}

    for a in reached:
        for b in reached:
            there = reached[a][b] * graph.strength[a]
            assert there == pytest.approx(reached[b][a] * graph.strength[b], abs=1e-7)


def test_the_walk_is_linear_in_its_seeds() -> None:
    graph = adjacency(4, (0, 1, 1.0), (1, 2, 2.0), (2, 3, 0.5))
    both = walk(graph, np.array([0, 3]), np.array([3.0, 1.0]), **EXACT)

    parts = 0.75 * from_node(graph, 0).mass + 0.25 * from_node(graph, 3).mass

    assert both.mass == pytest.approx(parts)


def test_distance_counts_steps_from_the_nearest_seed() -> None:
    graph = adjacency(6, (0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0), (4, 5, 1.0))

    assert from_node(graph, 0).distance.tolist() == [0, 1, 2, 3, -1, -1]


def test_a_seed_without_edges_keeps_its_mass_to_itself() -> None:
    reached = from_node(adjacency(3, (0, 1, 1.0)), 2)

    assert np.flatnonzero(reached.mass).tolist() == [2]


def test_the_predecessor_is_the_nearer_neighbour_that_sends_most() -> None:
    graph = adjacency(4, (0, 1, 1.0), (0, 2, 5.0), (1, 3, 1.0), (2, 3, 1.0))
    reached = from_node(graph, 0)

    assert predecessors(graph, np.array([3, 2, 0]), reached).tolist() == [2, 0, -1]


def test_near_both_comes_before_near_one() -> None:
    first, second = np.array([1.0, 0.3, 0.0, 0.0]), np.array([0.0, 0.3, 1.0, 0.0])

    joined = soft_and([first, second], [1.0, 1.0])

    assert np.argmax(joined) == 1
    assert joined[0] == pytest.approx(joined[2])
    assert joined[0] > 0
    assert joined[3] == 0


def test_one_group_alone_is_left_as_it_is() -> None:
    score = np.array([0.0, 0.2, 1.0])

    assert soft_and([score], [0.7]) == pytest.approx(score)
