"""Laws of the click models: what is drawn is what the formula says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.simulation.clicks import (
    CLICK_MODELS,
    Cascade,
    DynamicBayesian,
    PositionBased,
    attraction,
)

PAGES = st.lists(st.floats(0, 1), min_size=1, max_size=10).map(np.array)


@pytest.mark.parametrize("model", CLICK_MODELS.values(), ids=CLICK_MODELS)
def test_the_click_rate_by_rank_is_the_models_formula(model):
    page = np.array([0.1, 0.7, 0.3, 0.9, 0.05, 0.5, 0.2, 0.6, 0.4, 0.8])
    rng = np.random.default_rng(7)
    draws = 20_000

    counts = np.zeros(10)
    for _ in range(draws):
        counts[model.draw(page, rng)] += 1

    expected = model.probabilities(page)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert np.abs(counts / draws - expected).max() <= 5 * error.max()


@given(PAGES)
def test_probabilities_are_probabilities_and_never_above_attraction(page):
    for model in CLICK_MODELS.values():
        clicked = model.probabilities(page)

        assert clicked.shape == page.shape
        assert (clicked >= 0).all()
        assert (clicked <= page + 1e-12).all()


@given(PAGES, st.integers(0, 1_000))
def test_the_cascade_clicks_once_at_most(page, seed):
    assert len(Cascade().draw(page, np.random.default_rng(seed))) <= 1


def test_hand_worked_probabilities():
    page = np.array([0.5, 0.5])

    assert PositionBased(decay=1.0).probabilities(page).tolist() == [0.5, 0.25]
    assert Cascade().probabilities(page).tolist() == [0.5, 0.25]
    # The second is read if the user goes on (.8) and the first did not satisfy: 1 - .5 * .5 * .4.
    model = DynamicBayesian(perseverance=0.8, satisfaction=0.4)
    assert model.probabilities(page) == pytest.approx([0.5, 0.5 * 0.8 * 0.9])


def test_the_same_seed_gives_the_same_clicks():
    page = np.full(10, 0.5)
    for model in CLICK_MODELS.values():
        first = model.draw(page, np.random.default_rng(3))
        second = model.draw(page, np.random.default_rng(3))

        assert first.tolist() == second.tolist()


def test_unwanted_results_attract_by_noise_and_the_best_the_most():
    found = attraction(np.array([0, 2, 4]), noise=0.02, top=0.9)

    assert found.tolist() == pytest.approx([0.02, 0.02 + 0.88 * 3 / 15, 0.9])
