"""Unpacks the server in PyPI's `milvus` to FOLDER: `python unpack_milvus.py FOLDER`.

The package is used for its binaries and its configuration only; its launcher is left out, because
it ends the server with SIGKILL after a second.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import milvus

_DATA = "/var/lib/milvus"


def main(folder: Path) -> None:
    """Write `bin` and `configs` below the folder, with all data where the real image has it."""
    milvus._initialize_data_files(str(folder))
    config = milvus.MilvusServerConfig(data_dir=_DATA)
    config.resolve()
    shutil.move(f"{_DATA}/configs", folder / "configs")
    shutil.rmtree(_DATA)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
