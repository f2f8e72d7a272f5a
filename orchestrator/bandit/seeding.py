"""Randomness that can be replayed: every request gets generators derived from its own id."""

from __future__ import annotations

import hashlib

import numpy as np


def _digest(seed: int, key: str, purpose: str) -> bytes:
    # Lengths keep ("ab", "c") and ("a", "bc") apart.
    parts = f"{seed}:{len(key)}:{key}:{purpose}"
    return hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def derive_rng(seed: int, request_id: str, purpose: str) -> np.random.Generator:
    """Return the generator of random numbers for one purpose within one request.

    The same arguments always give the same stream, on every machine; different purposes (such as
    `plan` and `propensity`) give streams that are independent of each other.
    """
    return np.random.default_rng(int.from_bytes(_digest(seed, request_id, purpose), "big"))


def unit_interval(seed: int, key: str, purpose: str) -> float:
    """Return a number in [0, 1) that depends on the arguments alone, uniform over keys."""
    return (int.from_bytes(_digest(seed, key, purpose)[:8], "big") >> 11) / (1 << 53)
