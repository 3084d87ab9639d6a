"""What the README shows must run: its example is served as it stands, from an empty directory."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import httpx2

from app.agent import Agent

TOP = Path(__file__).resolve().parents[1]


def example(number: int = 0) -> str:
    """A Python block of the README."""
    found = re.findall(r"```python\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    return str(found[number])


async def test_the_example_is_served_from_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "pets.py").write_text(example())
    environ = {**os.environ, "PYTHONPATH": str(TOP), "HOLDFAST_DEMO_PACE": "0", "OPENAI_API_KEY": ""}
    arguments = [sys.executable, "-m", "app", "--port", "0", "--agent", "pets:agent"]
    server = await asyncio.create_subprocess_exec(*arguments, cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE)
    assert server.stdout is not None
    try:
        async with asyncio.timeout(60):
            said = (await server.stdout.readline()).decode()
        url = said.split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url), said
        async with httpx2.AsyncClient(base_url=url) as http:
            created = (await http.post("/api/conversations", json={"prompt": "Hello"})).json()
            shown = (await http.get(f"/api/conversations/{created['conversation']}")).json()
            page = await http.get("/")
        assert shown["agent"] == "pets" and created["run"]
        assert page.status_code == 200 and "<title>" in page.text
        assert (tmp_path / "data" / "holdfast.db").exists(), "the data directory is where the server was started"
    finally:
        if server.returncode is None:
            server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


def test_every_example_makes_an_agent() -> None:
    examples = re.findall(r"```python\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    for number, text in enumerate(text for text in examples if "asyncio.run(" not in text):
        made: dict[str, object] = {"__name__": f"example{number}"}
        exec(compile(text, f"README.md, example {number}", "exec", dont_inherit=True), made)
        assert isinstance(made["agent"], Agent)


async def test_the_program_runs_as_it_stands(tmp_path: Path) -> None:
    """A continuation inspected, decided and resumed in Python; then `check` finds its log right."""
    (tmp_path / "dinner.py").write_text(example(1))
    environ = {**os.environ, "PYTHONPATH": str(TOP)}
    for arguments, said in (
        (["dinner.py"], r"reserve \{'place': .*\nDone: a table for "),
        (["-m", "app", "check"], r"  ok  \d requests rebuilt and equal\n"),
    ):
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, *arguments),
            cwd=tmp_path,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            printed, complained = await program.communicate()
        assert program.returncode == 0 and complained == b"", complained.decode()
        assert re.search(said, printed.decode()), printed.decode()


def test_the_example_is_short() -> None:
    assert len([line for line in example().splitlines() if line.strip()]) <= 20


def test_the_picture_is_there() -> None:
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", (TOP / "README.md").read_text()):
        assert (TOP / picture).exists()
