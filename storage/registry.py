"""The model registry: weights by id, which of a preset is champion, and the model cards.

    FOLDER/<model id>.safetensors   FOLDER/<model id>.md (card)   FOLDER/champions.json

The folder of the package holds the shipped models; a user's own folder (UNBRAID_MODELS, or
~/.local/share/unbraid/models) is looked at first. A preset may borrow another's weights: `hq` has no file
of its own, and `hq-479dc906` is the file `stereo-479dc906.safetensors` under another view.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
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
    """A model on disk. `champion` marks the one that its preset's bare name stands for.

    `path` is the file with its weights, of the lending preset where its own borrows them.
    """

    model_id: str
    preset: str
    path: Path
    champion: bool
    shipped: bool

    @property
    def card(self) -> str | None:
        """The text of its own card, else of the card beside its weights, or None where there is neither."""
        for path in (self.path.with_name(f"{self.model_id}.md"), self.path.with_suffix(".md")):
            if path.exists():
                return path.read_text()
        return None


class Registry:
    """The user's folder before the shipped one.

    Args:
        shipped: Folder of the models that came with the package.
        folder: The user's folder; `default_folder()` where none is given.
        borrowers: Preset → the preset whose weights it uses.
    """

    def __init__(self, shipped: Path, folder: Path | None = None, borrowers: Mapping[str, str] | None = None) -> None:
        self.folder = folder or default_folder()
        self._shipped = shipped
        self._borrowers = dict(borrowers or {})

    def models(self) -> list[RegisteredModel]:
        """Every model with weights of its own, and the champion of every preset that borrows; sorted by id."""
        champions = self.champions()
        models: dict[str, RegisteredModel] = {}
        for folder in (self.folder, self._shipped):
            for path in sorted(folder.glob(f"*{_SUFFIX}")):
                match = _ID.match(path.stem)
                if match and path.stem not in models:
                    preset = match["preset"]
                    champion = champions.get(preset) == path.stem
                    models[path.stem] = RegisteredModel(path.stem, preset, path, champion, folder == self._shipped)
        for borrower in self._borrowers.keys() & champions.keys():
            model_id = champions[borrower]
            if model_id not in models and (borrowed := self._borrowed(model_id, models)):
                models[model_id] = dataclasses.replace(borrowed, champion=True)
        return sorted(models.values(), key=lambda model: model.model_id)

    def champions(self) -> dict[str, str]:
        """Preset → model id; the user's choice over the shipped one, the lender's champion where there is none."""
        pointers = {**_pointers(self._shipped), **_pointers(self.folder)}
        champions = {preset: ids[0] for preset, ids in pointers.items() if ids}
        return {**self._lent(champions), **champions}

    def _lent(self, champions: Mapping[str, str]) -> dict[str, str]:
        """Borrowing preset → the id under which it uses its lender's champion."""
        return {
            borrower: f"{borrower}-{champions[lender].rpartition('-')[2]}"
            for borrower, lender in self._borrowers.items()
            if lender in champions
        }

    def _borrowed(self, model_id: str, models: Mapping[str, RegisteredModel]) -> RegisteredModel | None:
        """The model of a borrowing preset over the weights of the lender's model of the same hash."""
        match = _ID.match(model_id)
        lender = self._borrowers.get(match["preset"]) if match else None
        lent = models.get(f"{lender}-{match['digest']}") if match and lender else None
        if lent is None:
            return None
        return dataclasses.replace(lent, model_id=model_id, preset=match["preset"], champion=False)

    def find(self, name: str) -> RegisteredModel:
        """A model by id, or the champion of a preset by the preset's name.

        Raises:
            RegistryError: No such model is registered.
        """
        models = self.models()
        for model in models:
            if name == model.model_id or (name == model.preset and model.champion):
                return model
        if borrowed := self._borrowed(name, {model.model_id: model for model in models}):
            return borrowed
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
        lent = self._lent(self.champions()).get(preset)
        earlier = before or _pointers(self._shipped).get(preset, []) or ([lent] if lent else [])
        if preset not in own or not earlier:
            raise RegistryError(f"preset {preset} has no champion before its present one; see `unbraid models`")
        self._point({name: ids for name, ids in {**own, preset: before}.items() if ids})
        return earlier[0]

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
        pointers = json.loads((folder / _CHAMPIONS).read_text())
        return {preset: [ids] if isinstance(ids, str) else list(ids) for preset, ids in pointers.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RegistryError(f"{folder / _CHAMPIONS} cannot be read ({error}); delete it or mend it") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _preset_of(path: Path) -> str:
    match = _ID.match(path.stem)
    return match["preset"] if match else path.stem
