"""Off-policy evaluation: what another policy would have earned, from the log of this one.

`decisions` and `open_bandit` read logs, `target` asks the real policies what they would have
done, and both meet in a `sample`. `estimators` answer, `intervals` say how surely, `trust` refuses
what must not be believed, `assessment` is all of it, and `coverage` measures it where the truth
is known. `commands:ope` is `forage ope`.
"""

from evaluation.ope.assessment import Assessment, assess
from evaluation.ope.estimators import Estimate
from evaluation.ope.intervals import Interval
from evaluation.ope.sample import Sample
from evaluation.ope.trust import Diagnostics, TrustRules, WeightDiagnostics

__all__ = [
    "Assessment",
    "Diagnostics",
    "Estimate",
    "Interval",
    "Sample",
    "TrustRules",
    "WeightDiagnostics",
    "assess",
]
