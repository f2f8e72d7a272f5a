"""What a process and its children take: memory as the kernel counts it, and processor time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PARENT, _USER, _SYSTEM = 1, 11, 12


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used so far, and hold now."""

    cpu_s: float
    """User and system time."""
    pss_mb: float
    """Resident memory, pages shared with other processes counted in parts."""
    peak_mb: float
    """The most resident memory at any time, shared pages counted wholly."""


NOTHING = Usage(0.0, 0.0, 0.0)


def usage(pid: int) -> Usage:
    """Return what a process and its children use; raises `OSError` if there is no process."""
    found = [_one(process) for process in (Path(f"/proc/{pid}"), *_children(pid))]
    return Usage(*(sum(parts) for parts in zip(*found, strict=True)))


def disk_mb(folder: Path) -> float:
    """Return what the files below a folder, or one file, take."""
    files = folder.rglob("*") if folder.is_dir() else [folder]
    return sum(f.stat().st_size for f in files if f.is_file()) / 2**20


def _one(process: Path) -> tuple[float, float, float]:
    fields = _stat(process)
    cpu_s = (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS
    pss = _kilobytes(process / "smaps_rollup", "Pss")
    return cpu_s, pss / 1024, _kilobytes(process / "status", "VmHWM") / 1024


def _stat(process: Path) -> list[str]:
    """Return the fields after the program's name, which may itself hold spaces."""
    return (process / "stat").read_text().rpartition(")")[2].split()


def _kilobytes(file: Path, name: str) -> int:
    lines = (line.split() for line in file.read_text().splitlines())
    return next((int(line[1]) for line in lines if line[0] == f"{name}:"), 0)


def _children(pid: int) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(_stat(process)[_PARENT])
        except OSError:
            # It has ended since.
            continue
        if parent == pid:
            yield process
