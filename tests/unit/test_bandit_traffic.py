"""Traffic is split deterministically, and the safeguard falls back and returns."""

import json

import numpy as np
import pytest

from orchestrator.bandit import LEARNED, Safeguard, SafeguardSettings, Traffic, Verdict

SETTINGS = SafeguardSettings(half_life_s=500.0, min_evidence=50.0)


def test_requests_are_split_by_the_stated_shares():
    traffic = Traffic({"thompson": 3, "static": 1}, uniform=0.02, full=0.01)

    names = [traffic.assign(f"request-{i}", seed=1) for i in range(20_000)]

    for name, share in traffic.shares().items():
        assert names.count(name) / 20_000 == pytest.approx(share, abs=0.01)
    assert sum(traffic.shares().values()) == pytest.approx(1)
    assert traffic.shares()["thompson"] == pytest.approx(0.97 * 0.75)


def test_the_same_key_always_gets_the_same_slice_and_another_seed_reshuffles():
    traffic = Traffic({"thompson": 1, "static": 1})
    keys = [f"user-{i}" for i in range(200)]

    first = [traffic.assign(key, seed=1) for key in keys]

    assert first == [traffic.assign(key, seed=1) for key in keys]
    assert first != [traffic.assign(key, seed=2) for key in keys]


def test_a_slice_without_share_gets_no_traffic():
    traffic = Traffic({"thompson": 1, "lints": 0}, uniform=0, full=0)

    assert traffic.shares() == {"thompson": 1.0}
    assert {traffic.assign(str(i), seed=0) for i in range(100)} == {"thompson"}


def test_falling_back_moves_all_but_the_probes():
    traffic = Traffic({"thompson": 1.0, "lints": 1.0, "static": 1.0}, uniform=0, full=0)

    shares = traffic.with_fallback(["thompson"], to="static", probe_share=0.1).shares()

    assert shares["thompson"] == pytest.approx(0.1 / 3)
    assert shares["static"] == pytest.approx(1.9 / 3)
    assert shares["lints"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"uniform": -0.1},
        {"uniform": 0.6},
        {"full": float("nan")},
        {"weights": {}},
        {"weights": {"thompson": 0.0}},
        {"weights": {"thompson": -1.0}},
        {"weights": {"thompson": float("inf")}},
        {"weights": {"uniform": 1.0}},
    ],
)
def test_shares_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"share|weights|slices"):
        Traffic(**bad)


def feed(guard, *, learned, static, rounds, start, seed=0, static_every=5):
    """Let users come once a second; every fifth sees the static preset."""
    rng = np.random.default_rng(seed)
    for i in range(rounds):
        arm, rate = ("fixed", static) if i % static_every == 0 else (LEARNED, learned)
        guard.observe(arm, float(rng.random() < rate), time=start + i)
    return start + rounds


def test_a_clearly_worse_learned_policy_falls_back_to_the_best_preset():
    guard = Safeguard(SETTINGS)
    for i in range(200):
        guard.observe("poor", 0.1, time=float(i))

    feed(guard, learned=0.3, static=0.7, rounds=1_000, start=200)

    assert guard.verdict().fallen_back
    assert guard.verdict().best_preset == "fixed"
    assert guard.verdict().z < -3


def test_it_returns_once_the_learned_policy_has_recovered():
    guard = Safeguard(SETTINGS)
    now = feed(guard, learned=0.3, static=0.7, rounds=1_000, start=0)
    assert guard.verdict().fallen_back

    feed(guard, learned=0.8, static=0.7, rounds=4_000, start=now)

    assert not guard.verdict().fallen_back


def test_between_the_two_bounds_the_state_is_kept():
    settings = SafeguardSettings(half_life_s=1e9, min_evidence=50, enter_z=1e6, leave_z=-1e6)
    calm = Safeguard(settings)
    fallen = Safeguard.from_state(calm.to_state() | {"fallen_back": True}, settings)

    for guard in (calm, fallen):
        feed(guard, learned=0.4, static=0.6, rounds=500, start=0)

    assert not calm.verdict().fallen_back
    assert fallen.verdict().fallen_back


def test_an_equally_good_learned_policy_is_rarely_accused():
    accused = 0
    for seed in range(20):
        guard = Safeguard(SETTINGS)
        feed(guard, learned=0.5, static=0.5, rounds=600, start=0, seed=seed)
        accused += guard.verdict().fallen_back

    assert accused <= 1


def test_little_evidence_accuses_nobody():
    guard = Safeguard(SETTINGS)

    feed(guard, learned=0.0, static=1.0, rounds=100, start=0)

    assert guard.verdict() == Verdict(False, "", 0.0)


def test_the_estimate_is_the_mean_of_recent_values():
    guard = Safeguard(SETTINGS)
    for i in range(1_000):
        guard.observe(LEARNED, 0.2, time=float(i))
    for i in range(5_000):
        guard.observe(LEARNED, 0.8, time=1_000.0 + i)

    assert guard.estimate(LEARNED).mean == pytest.approx(0.8, abs=0.01)
    assert guard.estimate("unknown").evidence == 0


def test_late_values_count_as_much_as_if_they_had_come_in_time():
    in_time, late = Safeguard(SETTINGS), Safeguard(SETTINGS)
    events = [(0.1, 0.0), (0.9, 100.0), (0.4, 300.0)]

    for value, time in events:
        in_time.observe(LEARNED, value, time=time)
    for value, time in [events[2], events[0], events[1]]:
        late.observe(LEARNED, value, time=time)

    assert late.estimate(LEARNED).mean == pytest.approx(in_time.estimate(LEARNED).mean)
    assert late.estimate(LEARNED).evidence == pytest.approx(in_time.estimate(LEARNED).evidence)


def test_the_state_survives_json_exactly():
    guard = Safeguard(SETTINGS)
    now = feed(guard, learned=0.3, static=0.7, rounds=700, start=0)

    restored = Safeguard.from_state(json.loads(json.dumps(guard.to_state())), SETTINGS)
    for each in (guard, restored):
        feed(each, learned=0.6, static=0.6, rounds=300, start=now, seed=3)

    assert restored.to_state() == guard.to_state()
    assert restored.verdict() == guard.verdict()


@pytest.mark.parametrize("state", [{}, {"arms": 1, "fallen_back": True}, {"arms": {"a": 3}}])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(ValueError, match="safeguard state"):
        Safeguard.from_state({"fallen_back": False} | state)


@pytest.mark.parametrize(
    "bad", [{"half_life_s": 0}, {"probe_share": 0}, {"min_evidence": 1}, {"leave_z": 5}]
)
def test_safeguard_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=r"safeguard|leave_z"):
        SafeguardSettings(**bad)


@pytest.mark.parametrize("bad", [(float("nan"), 0, 1), (1, float("inf"), 1), (1, 0, -1)])
def test_numbers_that_are_none_are_refused(bad):
    value, time, weight = bad
    with pytest.raises(ValueError, match=r"finite|weight"):
        Safeguard(SETTINGS).observe(LEARNED, value, time=time, weight=weight)
