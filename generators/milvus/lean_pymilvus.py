"""pymilvus without pandas, until something needs it.

pymilvus imports pandas, and with it PyArrow, to recognise data frames in its older interface.
Only `MilvusClient` is used here, and it is never given one; putting pandas off saves about 85 MB
of every process that uses Milvus. A function of pandas that is called after all is found in the
real one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class _NoDataFrame:
    """Stands for `pandas.DataFrame` in `isinstance`: nothing is an instance of it."""


class _Later(ModuleType):
    """A module whose functions are looked up in the real one when they are called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
            return getattr(importlib.import_module(self.__name__), name)(*arguments, **named)

        return call


def _import_pymilvus() -> None:
    stand_ins: dict[str, ModuleType] = {
        name: _Later(name) for name in ("pandas", "pandas.api", "pandas.api.types")
    }
    vars(stand_ins["pandas"]).update(DataFrame=_NoDataFrame, Series=_NoDataFrame)
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("pymilvus")
    finally:
        for name in stand_ins:
            del sys.modules[name]


if "pandas" not in sys.modules and "pymilvus" not in sys.modules:
    _import_pymilvus()

from pymilvus import (  # noqa: E402
    CollectionSchema,
    DataType,
    Function,
    FunctionType,
    MilvusClient,
)
from pymilvus.client.types import LoadState  # noqa: E402
from pymilvus.exceptions import MilvusException  # noqa: E402
from pymilvus.milvus_client.index import IndexParams  # noqa: E402

__all__ = [
    "CollectionSchema",
    "DataType",
    "Function",
    "FunctionType",
    "IndexParams",
    "LoadState",
    "MilvusClient",
    "MilvusException",
]
