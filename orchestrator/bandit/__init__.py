"""The bandit that plans retrieval: which generators to ask, and for how many items.

Pure: NumPy in, NumPy out; no I/O, no clock, no global randomness. `policy` says what a policy is,
`thompson` and `baselines` are the policies, `hazard` and `linear` what they believe, `posterior`
how beliefs are kept, `knapsack` how a plan is found, `learner` how snapshots come to be.
"""

from orchestrator.bandit.archive import SnapshotDamagedError, SnapshotNewerError
from orchestrator.bandit.baselines import CallEverythingPolicy, StaticPolicy, UniformPresetsPolicy
from orchestrator.bandit.learner import Learner, LearnerSettings
from orchestrator.bandit.levels import Levels
from orchestrator.bandit.observation import Engagement, Observation, covered_reward, observe
from orchestrator.bandit.policy import BIAS, PlanChoice, PlanContext, Policy, Source
from orchestrator.bandit.propensity import Action, Distribution, Propensity, mixture_propensity
from orchestrator.bandit.safeguard import LEARNED, Safeguard, SafeguardSettings, Verdict
from orchestrator.bandit.seeding import derive_rng
from orchestrator.bandit.snapshot import Snapshot, SnapshotMismatchError
from orchestrator.bandit.thompson import EpsilonGreedyPolicy, LinTSPolicy, ThompsonPolicy
from orchestrator.bandit.traffic import Traffic

__all__ = [
    "BIAS",
    "LEARNED",
    "Action",
    "CallEverythingPolicy",
    "Distribution",
    "Engagement",
    "EpsilonGreedyPolicy",
    "Learner",
    "LearnerSettings",
    "Levels",
    "LinTSPolicy",
    "Observation",
    "PlanChoice",
    "PlanContext",
    "Policy",
    "Propensity",
    "Safeguard",
    "SafeguardSettings",
    "Snapshot",
    "SnapshotDamagedError",
    "SnapshotMismatchError",
    "SnapshotNewerError",
    "Source",
    "StaticPolicy",
    "ThompsonPolicy",
    "Traffic",
    "UniformPresetsPolicy",
    "Verdict",
    "covered_reward",
    "derive_rng",
    "mixture_propensity",
    "observe",
]
