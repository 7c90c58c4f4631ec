"""The direction of imports between the rooms, as ARCHITECTURE.md draws it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "flows": {"flows", "tasks", "storage", "model"},
    "tasks": {"tasks", "storage", "model"},
    "model": {"model"},
    "storage": {"storage"},
}
# What a room must not know of, whoever wrote it.
FOREIGN = {
    "flows": {"numpy", "soundfile", "av", "zarr", "librosa"},
    "tasks": {"prefect", "pyarrow", "duckdb"},
    "model": {"prefect", "dask", "distributed", "zarr", "soundfile", "av", "pyarrow"},
    "storage": {"torch", "prefect", "dask", "distributed"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    for path in (ROOT / room).rglob("*.py"):
        wrong = (imported(path) & set(ROOMS)) - ROOMS[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("room", FOREIGN)
def test_a_room_leaves_foreign_work_to_the_room_that_does_it(room):
    for path in (ROOT / room).rglob("*.py"):
        wrong = imported(path) & FOREIGN[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_module_grows_past_a_second_noun():
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if len(path.read_text().splitlines()) > 400
    }
    assert not long
