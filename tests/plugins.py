"""Packages of other people, as installed ones look: modules with entry points."""

import sys
from pathlib import Path


def install(folder: Path, monkeypatch, group: str, name: str, source: str) -> None:
    """Put a package on the path whose module holds `source` and whose entry point `name` in `group` is its `THING`."""
    module = f"plugin_{name}"
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}:THING\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)
