"""What the exploration study says of itself: shares, the formula, and its lines in the report."""

import json

import numpy as np
import pytest

from evaluation.report.pages import _simulation_notes
from evaluation.simulation.exploration_study import Explored
from evaluation.simulation.results import ratio_cost
from evaluation.simulation.run import RunSettings

EXPLORED = Explored(
    impressions=(10, 10, 12, 8),
    ten=(300.0, 310.0, 250.0, np.inf),
    slots=0.4,
    ndcg=np.full(400, 0.594),
    without=np.full(400, 0.6),
)


def test_the_formula_gives_the_searches_if_all_get_equally_many():
    assert EXPLORED.searches == 400
    # 40 impressions in 160 slots.
    assert EXPLORED.share == pytest.approx(0.25)
    # 4 items need 40, of .1 per search.
    assert EXPLORED.expected == pytest.approx(400)


def test_the_cost_is_a_share_of_what_there_was():
    cost = ratio_cost(EXPLORED.ndcg, EXPLORED.without, np.random.default_rng(1))

    assert (cost.mean, cost.low, cost.high) == pytest.approx((0.01, 0.01, 0.01))
    assert cost.queries == 400


def test_the_report_tells_what_the_oracle_is_and_how_long_exploring_takes():
    about = {
        "proven": 0.75,
        "exploration": {
            "items": len(EXPLORED.ten),
            "slots_per_search": EXPLORED.slots,
            "share_of_slots": EXPLORED.share,
            "expected_searches": EXPLORED.expected,
        },
        "robustness": [
            {"users": "cascade", "contender": "thompson", "ndcg": 0.5, "net": 0.4, "cost": 0.2}
        ],
    }
    lines = list(_simulation_notes(json.loads(json.dumps(about))))

    assert "75% of the needs" in lines[0]
    assert "4 new items, 0.40 slots" in lines[2]
    assert "here 400" in lines[2]
    assert "| cascade | thompson | 0.500 | 0.400 | 0.200 |" in lines
    assert RunSettings().delay_s == 0.0
