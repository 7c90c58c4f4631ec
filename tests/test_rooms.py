"""The direction of imports between and inside the rooms, as ARCHITECTURE.md draws it, and that what it names exists."""

import ast
import collections
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "flows": {"flows", "tasks", "storage", "model"},
    "tasks": {"tasks", "storage", "model"},
    "model": {"model"},
    "storage": {"storage"},
    "unbraid": {"unbraid", "flows", "tasks", "storage", "model"},
}
# What a room must not know of, whoever wrote it.
FOREIGN = {
    "flows": {"numpy", "soundfile", "av", "zarr", "librosa"},
    "tasks": {"prefect", "pyarrow", "duckdb"},
    "model": {"prefect", "dask", "distributed", "zarr", "soundfile", "av", "pyarrow"},
    "storage": {"torch", "prefect", "dask", "distributed"},
}
# Inside a room: sub-rooms and modules in layers, the lowest first. What is in a layer imports only what is in layers
# below it (and, in a sub-room, its fellows). A new module may stay unlisted while its place is open.
LAYERS = {
    "storage": [["errors"], ["files"], ["audio", "registry", "runs", "store"], ["sources", "results"]],
    "model": [
        ["errors"], ["bounds", "spectra"], ["networks", "preset", "scoring"], ["checkpoint"], ["separation"],
        ["learning"],
    ],
    "tasks": [
        ["settings"], ["loading", "score", "prediction"], ["worker"],
        ["separate", "evaluate", "ingest", "training", "mashup", "demo"],
    ],
    "flows": [
        ["running", "settings"], ["ingest", "train", "tune", "prune", "evaluate"], ["separate"], ["mashup", "retrain"],
        ["cli"],
    ],
}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """The modules that a module imports, anywhere in it, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    for path in (ROOT / room).rglob("*.py"):
        wrong = (packages(path) & set(ROOMS)) - ROOMS[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("room", FOREIGN)
def test_a_room_leaves_foreign_work_to_the_room_that_does_it(room):
    for path in (ROOT / room).rglob("*.py"):
        wrong = packages(path) & FOREIGN[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("room", LAYERS)
def test_inside_a_room_imports_go_down(room):
    height = {name: layer for layer, names in enumerate(LAYERS[room]) for name in names}
    for path in (ROOT / room).rglob("*.py"):
        inside = path.relative_to(ROOT / room)
        place = inside.parts[0].removesuffix(".py")
        for name in imported(path):
            target = name.split(".")[1] if name.startswith(f"{room}.") else place
            if place in height and target in height and target != place:
                assert height[target] < height[place], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("room", LAYERS)
def test_every_module_of_the_layers_exists(room):
    for name in (name for layer in LAYERS[room] for name in layer):
        assert (ROOT / room / name).is_dir() or (ROOT / room / f"{name}.py").is_file(), f"{room}/{name} is gone"


def test_no_module_grows_past_a_second_noun():
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if len(path.read_text().splitlines()) > 400
    }
    assert not long


DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
_FIRST = ("flows/", "tasks/", "model/", "storage/", "unbraid/", "tests/", "bench/", "docs/", ".ci/")


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.exists()], ids=lambda path: path.name)
def test_every_path_of_ours_that_a_document_names_exists(document):
    text = document.read_text()
    named = {name for name in re.findall(r"`([\w.-]+/[\w./-]+)`", text) if name.startswith(_FIRST)}
    links = {link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if "://" not in link}
    absent = {name for name in named if not (ROOT / name.split("::")[0]).exists()}
    absent |= {link for link in links if not (document.parent / link).exists()}
    assert not absent, f"{document.relative_to(ROOT)} names {sorted(absent)}"


def test_the_architecture_names_every_module():
    """By its path, or by its name alone where only one module has it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if path.name != "__init__.py"]
    names = collections.Counter(path.name for path in modules)
    unnamed = [
        path.relative_to(ROOT).as_posix()
        for path in modules
        if f"`{path.relative_to(ROOT).as_posix()}`" not in text
        and (names[path.name] > 1 or f"`{path.name}`" not in text)
    ]
    assert not unnamed
