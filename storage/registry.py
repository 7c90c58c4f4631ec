"""The model registry: weights by id, which of a preset is champion, and the model cards.

    FOLDER/<model id>.safetensors   FOLDER/<model id>.md (card)   FOLDER/champions.json

The folder of the package holds the shipped models; a user's own folder (UNBRAID_MODELS, or
~/.local/share/unbraid/models) is looked at first.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from storage.errors import RegistryError
from storage.files.atomic import write_bytes, write_json
from storage.files.location import location

_ID = re.compile(r"^(?P<preset>[\w.-]+)-(?P<digest>[0-9a-f]{8})$")
_SUFFIX = ".safetensors"
_CHAMPIONS = "champions.json"


@dataclass(frozen=True)
class RegisteredModel:
    """A model on disk. `champion` marks the one that its preset's bare name stands for."""

    model_id: str
    preset: str
    path: Path
    champion: bool
    shipped: bool

    @property
    def card(self) -> str | None:
        """The text of its model card, or None where it has none."""
        path = self.path.with_suffix(".md")
        return path.read_text() if path.exists() else None


class Registry:
    """The user's folder before the shipped one."""

    def __init__(self, shipped: Path, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()
        self._shipped = shipped

    def models(self) -> list[RegisteredModel]:
        champions = self.champions()
        found: dict[str, RegisteredModel] = {}
        for folder in (self.folder, self._shipped):
            for path in sorted(folder.glob(f"*{_SUFFIX}")):
                match = _ID.match(path.stem)
                if match and path.stem not in found:
                    preset = match["preset"]
                    champion = champions.get(preset) == path.stem
                    found[path.stem] = RegisteredModel(path.stem, preset, path, champion, folder == self._shipped)
        return sorted(found.values(), key=lambda model: model.model_id)

    def champions(self) -> dict[str, str]:
        """Preset → model id; the user's choice over the shipped one."""
        pointers = {**_pointers(self._shipped), **_pointers(self.folder)}
        return {preset: ids[0] for preset, ids in pointers.items() if ids}

    def find(self, name: str) -> RegisteredModel:
        """A model by id, or the champion of a preset by the preset's name. Raises RegistryError."""
        models = self.models()
        for model in models:
            if name == model.model_id or (name == model.preset and model.champion):
                return model
        known = ", ".join(model.model_id for model in models) or "none"
        if any(model.preset == name for model in models):
            raise RegistryError(f"preset {name} has models but no champion; name one of {known}")
        raise RegistryError(f"{name} is not a registered model (there are: {known}); train one with `unbraid train`")

    def read(self, name: str) -> tuple[str, bytes]:
        """(model id, bytes) of a model by id, preset name or path of a weights file.

        Raises RegistryError when a registered file's bytes do not hash to its name.
        """
        as_path = location(name)
        if as_path.suffix == _SUFFIX:
            if not as_path.is_file():
                raise RegistryError(f"{name} is not there; name a weights file or a model id")
            data = as_path.read_bytes()
            return f"{_preset_of(as_path)}-{_digest(data)}", data
        model = self.find(name)
        data = model.path.read_bytes()
        if _digest(data) != model.model_id[-8:]:
            raise RegistryError(
                f"{model.path} is damaged: its bytes hash to {_digest(data)}, not to the {model.model_id[-8:]} "
                "of its name; put the original back"
            )
        return model.model_id, data

    def add(self, preset: str, data: bytes, card: str, *, champion: bool = False) -> str:
        """Register weights under their own hash; returns the model id."""
        model_id = f"{preset}-{_digest(data)}"
        write_bytes(self.folder / f"{model_id}{_SUFFIX}", data)
        write_bytes(self.folder / f"{model_id}.md", card.encode())
        if champion or preset not in self.champions():
            self.promote(model_id)
        return model_id

    def promote(self, model_id: str) -> None:
        """Make a model the champion of its preset, atomically; the one before is kept. Raises RegistryError."""
        model = self.find(model_id)
        own = _pointers(self.folder)
        before = [earlier for earlier in own.get(model.preset, []) if earlier != model.model_id]
        self._point({**own, model.preset: [model.model_id, *before]})

    def rollback(self, preset: str) -> str:
        """Make the champion before the present one champion again; returns its id.

        Behind the user's own champions stands the shipped one. Raises RegistryError when there is none before.
        """
        own = _pointers(self.folder)
        before = own.get(preset, [])[1:]
        shipped = _pointers(self._shipped).get(preset, [])
        if preset not in own or not (before or shipped):
            raise RegistryError(f"preset {preset} has no champion before its present one; see `unbraid models`")
        self._point({name: ids for name, ids in {**own, preset: before}.items() if ids})
        return (before or shipped)[0]

    def _point(self, pointers: dict[str, list[str]]) -> None:
        write_json(self.folder / _CHAMPIONS, pointers)


def default_folder() -> Path:
    """UNBRAID_MODELS, or the platform's usual data folder."""
    if chosen := os.environ.get("UNBRAID_MODELS"):
        return location(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "unbraid" / "models"


def _pointers(folder: Path) -> dict[str, list[str]]:
    """Preset → its champions in this folder, the present one first."""
    try:
        found = json.loads((folder / _CHAMPIONS).read_text())
        return {preset: [ids] if isinstance(ids, str) else list(ids) for preset, ids in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RegistryError(f"{folder / _CHAMPIONS} cannot be read ({error}); delete it or mend it") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _preset_of(path: Path) -> str:
    match = _ID.match(path.stem)
    return match["preset"] if match else path.stem
