"""The array types of the bandit.

Shapes are written with one letter per axis everywhere in this package: G generators, L fan-out
levels (level 0 is "do not call"), J = L - 1 rank buckets, K posteriors per generator, d context
features, M Monte-Carlo draws.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
