"""Stable 64-bit digests: the keys of the statistics."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]


def digest(text: str) -> int:
    """Return 64 bits of BLAKE2b of a text, the same in every process."""
    encoded = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")


def paired(keys: Keys, context: int) -> Keys:
    """Return the keys of the pairs (key, context): the finalizer of SplitMix64 over their sum."""
    mixed = keys + np.uint64(context)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
