"""Whether a process is there, as the system says it, for tests of what must be gone."""

from __future__ import annotations

from pathlib import Path


def lives(pid: int) -> bool:
    """Whether this process still runs. One that has ended and that nobody has asked about does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
