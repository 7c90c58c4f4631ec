"""The options that work is done under: each written once, with its type, default, bounds and help.

A flow's settings (`flows/settings.py`) add what only the flow process needs. The command line, Prefect's form and the
flow's signature are made from these fields, and `Settings.part` hands a worker its share. Nothing but pydantic is
imported here, because `--help` reads these classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]
Engine = Literal["bsseval", "sdr", "museval"]
StemFormatName = Literal["flac", "wav", "ogg", "opus", "mp3"]
StemNames = Literal["{track}/{stem}.{ext}", "{track}_{stem}.{ext}"]

_LEAST_MEMORY = 256 << 20  # less does not hold Python and torch

Part = TypeVar("Part", bound="Settings")


class SettingsError(ValueError):
    """A setting is unknown, missing, or has a value that it cannot have; the message is one sentence."""


@dataclass(frozen=True)
class Cli:
    """How a field appears on the command line where its name and type do not say it.

    Args:
        flags: Click's declarations, e.g. `--out` and `-o`; by default `--` and the field's name.
        argument: Whether the field is a positional argument.
        metavar: The placeholder of the value in the help.
        commas: Whether several values are given separated by commas, instead of by repeating the option.
        several: Whether a positional argument takes several values.
        place: Where the field is listed among those of its kind: -1 first, 1 last.
        hidden: Whether the command line does not offer the field.
    """

    flags: tuple[str, ...] = ()
    argument: bool = False
    metavar: str | None = None
    commas: bool = False
    several: bool = False
    place: int = 0
    hidden: bool = False


class Settings(BaseModel):
    """Frozen, checked when made; what cannot be raises SettingsError with one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(type(self), error)) from None

    @classmethod
    def ordered(cls) -> list[str]:
        """The fields' names as help and signature list them: arguments, what has no default, the others."""

        def rank(name: str) -> tuple[bool, bool, int]:
            field, cli = cls.model_fields[name], cls.cli(name)
            return not cli.argument, not field.is_required(), cli.place

        return sorted(cls.model_fields, key=rank)

    @classmethod
    def cli(cls, name: str) -> Cli:
        """How a field appears on the command line.

        Args:
            name: The field's name.

        Returns:
            What the field is annotated with, or the defaults of `Cli`.

        Raises:
            KeyError: There is no such field.
        """
        return next((item for item in cls.model_fields[name].metadata if isinstance(item, Cli)), Cli())

    def part(self, kind: type[Part], **more: Any) -> Part:
        """The settings of another class as far as both have them, with `more` added or replaced.

        Args:
            kind: The class to make, e.g. what a worker is told.
            more: Values by field of that class; they take precedence over these settings.

        Raises:
            SettingsError: A field of `kind` has neither a value nor a default, or one of `more` is unknown or does not
                fit.
        """
        shared = {name: getattr(self, name) for name in kind.model_fields if name in type(self).model_fields}
        return kind(**{**shared, **more})

    def replaced(self: Part, **values: Any) -> Part:
        """The same settings with some values replaced.

        Args:
            values: New values by field.

        Raises:
            SettingsError: There is no such field, or a value does not fit.
        """
        return self.part(type(self), **values)

    def values(self) -> dict[str, Any]:
        """Every field by name, as a flow takes them."""
        return {name: getattr(self, name) for name in type(self).model_fields}


def _sentence(kind: type[Settings], error: ValidationError) -> str:
    """The first thing that is wrong, as a sentence."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        names = list(kind.model_fields)
        return f"there is no setting {name}{_guess(name, names)}; there are {', '.join(names)}"
    if first["type"] == "missing":
        return f"{name} is missing"
    value = first["input"]
    if first["type"] == "literal_error":
        choices = first["ctx"]["expected"].replace("'", "")
        return f"{name} must be {choices}, not {value}"
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}"
    problem = first["msg"].replace("Input should be", "it must be")
    return f"{name} cannot be {value!r}: {problem[:1].lower()}{problem[1:]}"


def _guess(name: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def size_of_memory(value: str) -> str:
    """Check a worker's memory limit; returns it as it was given.

    Args:
        value: "auto", or a size in Dask's notation such as 4GB or 500MB.

    Raises:
        ValueError: It is not a size of memory, or less than the 256 MiB that a worker needs.
    """
    if value == "auto":
        return value
    from dask.utils import parse_bytes  # not above: every command comes by here, and Dask takes long to import

    try:
        size = parse_bytes(value)
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        raise ValueError(f"{value} is not a size of memory; write it as 4GB or 500MB")
    if size < _LEAST_MEMORY:
        raise ValueError(f"{value} is too little for a worker process; give it 1GB or more")
    return value


def is_weights_file(name: str) -> bool:
    """Whether a model is named by the path or URL of its weights file.

    Args:
        name: The model as the user names it.
    """
    return name.endswith(".safetensors")


def same_everywhere(name: str | None) -> str | None:
    """A file's name that means the same in every working folder: workers of a cluster have folders of their own.

    Args:
        name: A weights file or a preset's TOML file, which becomes absolute; anything else (a model's id, a preset's
            name, a URL, None) is returned as it is.
    """
    if name is None:
        return None
    is_file = name.endswith((".safetensors", ".toml")) and "://" not in name
    return os.path.abspath(os.path.expanduser(name)) if is_file else name


_SameEverywhere = AfterValidator(same_everywhere)


class ModelRequest(Settings):
    """Which separator a worker holds, and where its arithmetic runs."""

    model: Annotated[str, _SameEverywhere, Cli(metavar="ID")] = Field(
        "stereo", description="Model id, preset, or weights file."
    )
    device: Device = Field("auto", description="Where the network runs.")
    precision: Precision = Field(
        "auto", description="The network's arithmetic. Default: the fastest on this machine that keeps the sound."
    )

    @property
    def request(self) -> "ModelRequest":
        """This alone, the same for every settings object with these three."""
        return self.part(ModelRequest)


class Scoring(Settings):
    """How tracks with references are scored, and how long one track may take."""

    engine: Engine = Field(
        "bsseval", description="What scores: our BSSEval, SDR alone, or museval itself (the same numbers, much slower)."
    )
    windows: bool = Field(False, description="Keep the scores of every window, under OUT/windows.")
    seconds_per_track: Annotated[float, Cli(("--deadline",), metavar="SECONDS")] = Field(
        3600.0, ge=0.001, le=1e7, allow_inf_nan=False, description="Give up on a track after this many seconds."
    )


class Separation(Scoring, ModelRequest):
    """What is done to every track of a catalog."""

    out: Annotated[str, Cli(metavar="FOLDER")] = Field(
        min_length=1, description="Folder for stems, metrics, reports and run records."
    )
    stems: Annotated[tuple[str, ...] | None, Cli(metavar="NAMES", commas=True)] = Field(
        None, description="Stems to write, separated by commas. Default: all that the model has."
    )
    format: Annotated[StemFormatName, BeforeValidator(_lower)] = Field(
        "flac", description="flac and wav keep rate, channels and bit depth."
    )
    kbps: Annotated[int | None, Cli(("--mp3-bitrate",), metavar="KBPS")] = Field(
        None, ge=8, le=320, description="Constant bitrate of mp3, e.g. 320. Default: the encoder's quality."
    )
    two_stems: Annotated[str | None, Cli(metavar="STEM")] = Field(
        None, description="Write this stem, and all the others as one: vocals gives vocals and accompaniment."
    )
    tags: bool = Field(True, description="Copy the source's tags and cover.")
    names: Annotated[StemNames, Cli(metavar="TEMPLATE")] = Field(
        "{track}/{stem}.{ext}",
        description="How stems are named: {track}/{stem}.{ext}, a folder per track, or {track}_{stem}.{ext}.",
    )
    keep_models: bool = Field(
        False,
        description="Keep this model's stems beside those of others, under OUT/models.",
    )


class MashupSettings(Settings):
    """How mash-ups are made."""

    out: Annotated[str, Cli(metavar="FOLDER")] = Field(description="Folder for stems, mash-ups and their table.")
    balance: Annotated[float, Cli(metavar="LU")] = Field(
        -1.0, allow_inf_nan=False, description="Loudness of the vocals relative to the accompaniment's."
    )
    loudness: Literal["song", "frame"] = Field(
        "song", description="Set the vocals' level once per song, or continuously."
    )
    key: bool = Field(True, description="Shift the vocals to a key that fits.")
    denoise: Literal["hard", "soft"] | None = Field(
        None, description="Gate what the separation left of the accompaniment in the vocals."
    )
    bars: Annotated[int, Cli(("--morph",), metavar="BARS")] = Field(
        0, ge=0, le=64, description="Also make transitions from A to B over this many bars."
    )


class Training(Settings):
    """What every training needs: the store, the preset, the seed, the device."""

    store: Annotated[str, Cli(argument=True)] = Field(description="The zarr store to train on.")
    preset: Annotated[str, _SameEverywhere, Cli(metavar="NAME")] = Field(
        "stereo", description="A model configuration; see `unbraid models`."
    )
    seed: Annotated[int, Cli(metavar="N")] = Field(
        0, description="Seed of the network's first weights and of every example."
    )
    device: Device = Field("auto", description="Where the network is trained.")


class OneTraining(Training):
    """What a single training needs besides."""

    resume: bool = Field(False, description="Continue the run in the folder --run.")
    start: Annotated[str | None, _SameEverywhere, Cli(("--from",), metavar="ID")] = Field(
        None, description="Start from this model's weights where they fit."
    )
