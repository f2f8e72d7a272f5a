"""The report's table of other worlds, and the worlds themselves."""

from __future__ import annotations

from evaluation.report.pages import _worlds
from evaluation.report.parts import OTHER_WORLDS, PARTS, WORLDS
from evaluation.simulation.run import _sizes


def world(number: int, nets: dict[str, float], *, coverage: float, extra: bool = False) -> dict:
    findings = [
        {
            "what": "coverage of the engaged item",
            "value": coverage,
            "low": coverage - 0.01,
            "high": coverage + 0.01,
            "target": "≥ .97",
            "met": coverage >= 0.97,
        }
    ]
    if extra:
        findings.append({**findings[0], "what": "level after a change"})
    return {
        "about": {"settings": {"world": number}},
        "contenders": [
            {"contender": name, "net": net, "cost": 0.25, "ndcg": 0.5} for name, net in nets.items()
        ],
        "findings": findings,
    }


def test_contenders_stand_in_the_order_of_what_they_earn_in_all_worlds() -> None:
    lines = list(
        _worlds(
            [
                world(1, {"best plan": 0.40, "thompson": 0.39}, coverage=0.98, extra=True),
                world(7, {"thompson": 0.42, "best plan": 0.38}, coverage=0.96),
            ]
        )
    )

    head = next(i for i, line in enumerate(lines) if line.startswith("| contender"))
    assert "world 1, net | world 7, net | world 1, cost" in lines[head]
    assert lines[head + 2].startswith("| thompson | 0.390 | 0.420 | 0.250 | 0.250 |")
    assert lines[head + 3].startswith("| best plan | 0.400 | 0.380 |")


def test_targets_that_all_worlds_have_are_compared_and_misses_are_marked() -> None:
    nets = {"thompson": 0.4}
    lines = list(
        _worlds([world(1, nets, coverage=0.98, extra=True), world(2, nets, coverage=0.96)])
    )

    (row,) = [line for line in lines if line.startswith("| coverage")]
    assert row.endswith("| 0.980 [0.970, 0.990] | 0.960 [0.950, 0.970] **no** |")
    assert not any("level after a change" in line for line in lines)


def test_every_other_world_is_a_part_and_has_a_warm_up_of_its_own() -> None:
    assert set(WORLDS) <= set(PARTS)
    seeds = {_sizes(small=False, world=seed)[0].seed for seed in (1, *OTHER_WORLDS)}
    assert seeds == {1, *OTHER_WORLDS}
