"""The model registry: weights by id, which of a preset is champion, and the model cards.

    FOLDER/<model id>.safetensors   FOLDER/<model id>.md (card)   FOLDER/champions.json

The folder of the package holds the shipped models; a user's own folder (UNBRAID_MODELS, or
~/.local/share/unbraid/models) is searched first. A preset may borrow another's weights: `hq` has no file
of its own, and `hq-66f0566d` is the file `stereo-66f0566d.safetensors` under another view.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from storage.errors import RegistryError
from storage.files.atomic import write_bytes, write_json
from storage.files.location import is_url, location, make_folder, object_at

_ID = re.compile(r"^(?P<preset>[\w.-]+)-(?P<digest>[0-9a-f]{8})$")
_SUFFIX = ".safetensors"
_CHAMPIONS = "champions.json"
_LOCK_SECONDS = 30.0
_LARGEST = 4 << 30  # bytes of a weights file; ours have some ten million
_SWAPS = 20  # tries where others write at the same time

ANY = "any champion"
Pointers = dict[str, list[str]]  # preset → its champions, the current one first


@dataclass(frozen=True)
class RegisteredModel:
    """A model on disk. `champion` marks the one that its preset's bare name stands for.

    `path` is the file with its weights; where its preset borrows them, the file of the lending preset.
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
    """The registered models: those of the user's folder before the shipped ones.

    Args:
        shipped: Folder of the models that came with the package.
        folder: The user's folder; None for `default_folder()`.
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
                if match and path.stem not in models and (is_url(path) or path.is_file()):
                    preset = match["preset"]
                    champion = champions.get(preset) == path.stem
                    models[path.stem] = RegisteredModel(path.stem, preset, path, champion, folder == self._shipped)
        for borrower in self._borrowers.keys() & champions.keys():
            model_id = champions[borrower]
            if model_id not in models and (borrowed := self._borrowed(model_id, models)):
                models[model_id] = dataclasses.replace(borrowed, champion=True)
        return sorted(models.values(), key=lambda model: model.model_id)

    def champions(self) -> dict[str, str]:
        """Preset → model id: the user's choice, else the shipped one, else the lender's champion."""
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
        if match is None or lent is None:
            return None
        return dataclasses.replace(lent, model_id=model_id, preset=match["preset"], champion=False)

    def find(self, name: str) -> RegisteredModel:
        """Find a model by its id, or the champion of a preset by the preset's name.

        Args:
            name: A model id or a preset's name.

        Raises:
            RegistryError: No such model is registered, or the preset has no champion.
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
        names = [*{model.preset for model in models}, *(model.model_id for model in models)]
        near = difflib.get_close_matches(name, names, n=1)
        guess = f" (did you mean {near[0]}?)" if near else ""
        raise RegistryError(
            f"{name} is not a registered model{guess}; there are {known}; train one with `unbraid train`"
        )

    def read(self, name: str) -> tuple[str, bytes]:
        """Read the weights file of a model.

        Args:
            name: A model id, a preset's name (its champion is taken), or the path or URL of a weights file.

        Returns:
            (model id, bytes of the file).

        Raises:
            RegistryError: There is no such model, its file cannot be read, or a registered file's bytes do not hash to
                its name.
        """
        as_path = location(name)
        if as_path.suffix == _SUFFIX:
            data = _weights_in(as_path)
            return f"{_preset_of(as_path)}-{_digest(data)}", data
        model = self.find(name)
        data = _weights_in(model.path)
        if _digest(data) != model.model_id[-8:]:
            raise RegistryError(
                f"{model.path} is damaged: its bytes hash to {_digest(data)}, not to the {model.model_id[-8:]} "
                "of its name; put the original back"
            )
        return model.model_id, data

    def add(self, preset: str, data: bytes, card: str, *, champion: bool = False) -> str:
        """Register weights under the hash of their bytes.

        Args:
            preset: The preset's name.
            data: The weights file.
            card: The model's card, Markdown.
            champion: Whether the model becomes its preset's champion; the first of a preset always does.

        Returns:
            The model id.
        """
        model_id = f"{preset}-{_digest(data)}"
        write_bytes(self.folder / f"{model_id}{_SUFFIX}", data)
        write_bytes(self.folder / f"{model_id}.md", card.encode())
        if champion or preset not in self.champions():
            self.promote(model_id)
        return model_id

    def promote(self, model_id: str, *, instead_of: str | None = ANY) -> None:
        """Make a model the champion of its preset, in one step; the previous champion is kept for `rollback`.

        Args:
            model_id: A registered model.
            instead_of: The champion that the decision was made against (None for no champion); by default any.

        Raises:
            RegistryError: There is no such model, or another one than `instead_of` has become champion meanwhile.
        """
        model = self.find(model_id)

        def change(pointers: Pointers) -> Pointers:
            present = self.champions().get(model.preset)
            if instead_of is not ANY and present not in (instead_of, model.model_id):
                raise RegistryError(
                    f"{model_id} was judged against {instead_of or 'no champion'}, but {present} has become "
                    f"champion of {model.preset} in the meantime; it stays champion, run the comparison again"
                )
            before = [earlier for earlier in pointers.get(model.preset, []) if earlier != model.model_id]
            return {**pointers, model.preset: [model.model_id, *before]}

        self._change(change)

    def rollback(self, preset: str) -> str:
        """Make a preset's previous champion its champion again; after the user's champions comes the shipped one.

        Args:
            preset: The preset's name.

        Returns:
            The model id of the champion.

        Raises:
            RegistryError: There is no previous champion.
        """
        lent = self._lent(self.champions()).get(preset)
        fallback = _pointers(self._shipped).get(preset, []) or ([lent] if lent else [])
        champion = ""

        def change(pointers: Pointers) -> Pointers:
            nonlocal champion
            before = pointers.get(preset, [])[1:]
            if preset not in pointers or not (before or fallback):
                raise RegistryError(f"preset {preset} has no champion before the current one; see `unbraid models`")
            champion = (before or fallback)[0]
            return {name: ids for name, ids in {**pointers, preset: before}.items() if ids}

        self._change(change)
        return champion

    def _change(self, change: Callable[[Pointers], Pointers]) -> None:
        """Compare and swap: read the pointers, and write what `change` makes of them if nobody else has meanwhile."""
        target = self.folder / _CHAMPIONS
        if is_url(target):
            _swap_object(target, lambda: change(_pointers(self.folder)))
            return
        make_folder(self.folder)
        with FileLock(self.folder / f".{_CHAMPIONS}.lock", timeout=_LOCK_SECONDS):
            write_json(target, change(_pointers(self.folder)))


def _weights_in(path: Path) -> bytes:
    """The bytes of a weights file. Raises RegistryError."""
    try:
        if not path.is_file():
            problem = "is no file" if path.exists() else "is not there"
            raise RegistryError(f"{path} {problem}; name a weights file or a model id")
        if path.stat().st_size > _LARGEST:
            raise RegistryError(f"{path} has more than {_LARGEST >> 30} GiB, which no weights file has")
        return path.read_bytes()
    except OSError as error:
        raise RegistryError(f"{path} cannot be read ({error.strerror or error})") from error


def _swap_object(target: Path, changed: Callable[[], Pointers]) -> None:
    """Write an object on the condition that it is still the one that was read.

    The condition is set on S3 only; other stores write regardless.
    """
    store, key = object_at(target)
    for _ in range(_SWAPS):
        entry = store.info(key) if target.exists() else None
        data = json.dumps(changed(), indent=2).encode()
        if not str(target).startswith("s3://"):
            write_bytes(target, data)
            return
        condition = {"IfMatch": entry["ETag"]} if entry else {"IfNoneMatch": "*"}
        try:
            store.pipe_file(key, data, **condition)
            return
        except OSError as error:
            if "condition" not in str(error):  # 412 or 409: somebody has written since it was read
                raise
    raise RegistryError(f"{target} keeps being changed by other processes; try again")


def default_folder() -> Path:
    """UNBRAID_MODELS, else unbraid/models in the user's data folder (XDG_DATA_HOME or ~/.local/share)."""
    if chosen := os.environ.get("UNBRAID_MODELS"):
        return location(chosen)
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "unbraid" / "models"


def _pointers(folder: Path) -> Pointers:
    """Preset → its champions in this folder, the present one first."""
    try:
        target = folder / _CHAMPIONS
        # In one request: an object that is opened and read in two may have been replaced between them.
        if is_url(target):
            store, key = object_at(target)
            pointers = json.loads(store.cat_file(key))
        else:
            pointers = json.loads(target.read_text())
        champions = {preset: [ids] if isinstance(ids, str) else list(ids) for preset, ids in pointers.items()}
        if not all(isinstance(model_id, str) for ids in champions.values() for model_id in ids):
            raise TypeError("a model id is no text")
        return champions
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise RegistryError(f"{folder / _CHAMPIONS} cannot be read ({error}); repair or delete it") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _preset_of(path: Path) -> str:
    match = _ID.match(path.stem)
    return match["preset"] if match else path.stem
