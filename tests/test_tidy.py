"""The house rules as tests: imports only go down, the pure floors stay pure, rooms and functions stay small."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1] / "app"
FLOOR = {"core": 0, "agent": 1, "store": 1, "wire": 1, "actor": 2, "web": 3}
ROOF = {"main", "__main__", "settings", "watchdog", "check", "embedded", "server"}
PURE = ("core", "wire")
IMPURE_IMPORTS = {"time", "random", "secrets", "asyncio", "anyio", "datetime", "os", "socket", "threading", "uuid"}
FILE_LINES_MAX = 300
FUNCTION_LINES_MAX = 60
ACTOR_LINES_MAX = 250
LISTS = {"core/events.py"}
"""Files that are one long list and may be longer: nothing in them branches."""

FILES = sorted(APP.rglob("*.py"))


def room_of(path: Path) -> str:
    parts = path.relative_to(APP).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(tree: ast.AST) -> list[str]:
    """Every module that a file imports, by its full name."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_imports_only_go_down(path: Path) -> None:
    room = room_of(path)
    if room in ROOF or room == "__init__":
        return
    for name in imported(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "app" or len(parts) < 2:
            continue
        other = parts[1]
        assert other not in ROOF, f"{path} imports the roof: {name}"
        assert other == room or FLOOR[other] < FLOOR[room], f"{path} imports {name}, which is not below it"


@pytest.mark.parametrize(
    "path", [path for path in FILES if room_of(path) in PURE], ids=lambda path: str(path.relative_to(APP))
)
def test_pure_floors_know_no_clock_no_chance_and_no_await(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not {name.split(".")[0] for name in imported(tree)} & IMPURE_IMPORTS
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith), (
            f"{path}:{node.lineno} awaits"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_rooms_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(APP))
    most = ACTOR_LINES_MAX if name == "actor/actor.py" else FILE_LINES_MAX
    if name not in LISTS:
        assert text.count("\n") <= most, f"{name} has grown past {most} lines: split it by meaning"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_every_module_says_what_lives_in_it(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path} has no header"


def test_every_exception_is_caught_in_two_places_only() -> None:
    places = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"all"}
                )
                if names & {"Exception", "BaseException", "all"}:
                    places.append(room_of(path))
    assert sorted(places) == ["actor", "agent"], places


def test_only_the_settings_read_the_environment() -> None:
    readers = {str(path.relative_to(APP)) for path in FILES if re.search(r"os\.environ|getenv", path.read_text())}
    assert readers == {"__main__.py"}, "the roof hands the environment to settings.read, nobody else looks"


def test_one_process_knows_the_concrete_variants_at_the_roof_only() -> None:
    variants = ("sqlite", "memory", "openai", "model_demo")
    for path in FILES:
        if room_of(path) in ROOF or room_of(path) in ("store", "agent"):
            continue
        for name in imported(ast.parse(path.read_text())):
            assert not any(variant in name for variant in variants), f"{path} names a variant: {name}"


def test_our_copy_of_the_protocol_is_the_contract() -> None:
    shared = APP.parents[1] / "shared" / "PROTOCOL.md"
    if shared.exists():
        assert (APP / "wire" / "README.md").read_text() == shared.read_text()


def test_every_setting_has_a_row_in_the_readme() -> None:
    named = set(re.findall(r'"((?:HOLDFAST|OPENAI)_[A-Z_]+|PORT)"', (APP / "settings.py").read_text()))
    readme = (APP.parent / "README.md").read_text()
    assert named and all(f"`{name}`" in readme for name in named), [n for n in named if f"`{n}`" not in readme]
