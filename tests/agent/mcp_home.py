"""The rude server's directory, as a test writes and reads it. No import of app/: the acceptance tests use it, too."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str, description: str = "", **schema: Any) -> dict[str, Any]:
    """A definition in `tools.json`; `schema`: its properties."""
    return {"name": name, "description": description, "schema": {"type": "object", "properties": schema}}


LINE: dict[str, Any] = {"line": {"type": "string"}}
GATED: dict[str, Any] = {**LINE, "gate": {"type": "string"}}


class Home:
    """What the rude server offers, and what it has done."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "gates").mkdir(parents=True, exist_ok=True)
        self.offer()

    def offer(self, *tools: dict[str, Any]) -> None:
        """From now on it offers these; it says so by itself, if it lives."""
        half = self.place / "tools.half"
        half.write_text(json.dumps(tools))
        half.rename(self.place / "tools.json")

    def command(self, how: str = "new") -> list[str]:
        return [sys.executable, "-m", "tests.agent.mcp_server", how, str(self.place)]

    def close(self, gate: str) -> None:
        (self.place / "gates" / gate).unlink(missing_ok=True)

    def let(self, gate: str) -> None:
        (self.place / "gates" / gate).touch()

    def lines(self, file: str = "ledger") -> list[str]:
        path = self.place / file
        return path.read_text().splitlines() if path.exists() else []

    @property
    def pids(self) -> list[int]:
        return [int(line) for line in self.lines("starts")]

    def kill(self) -> None:
        """`kill -9` of the newest process of it."""
        os.kill(self.pids[-1], signal.SIGKILL)

    def lives(self, pid: int) -> bool:
        """Whether this process is there, and no zombie."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False
