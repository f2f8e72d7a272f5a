"""XGBoost without its scikit-learn interface.

Nothing here uses that interface, and importing it brings scikit-learn, pandas and PyArrow along
where they are installed: 120 MB and more than a second of every ranker's start.
"""

from __future__ import annotations

import sys
from typing import Any

_MODULE = "sklearn"
_modules: dict[str, Any] = sys.modules
_hidden = _MODULE not in _modules
if _hidden:
    # None makes an import fail; XGBoost then does without.
    _modules[_MODULE] = None
try:
    import xgboost
finally:
    if _hidden:
        del _modules[_MODULE]

__all__ = ["xgboost"]
