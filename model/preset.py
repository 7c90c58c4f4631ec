"""Presets: named configurations of front end, network, inference and training, one TOML file each."""

import dataclasses
import difflib
import re
import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from model.bounds import check_name, check_numbers, check_stems, check_types, excerpt
from model.errors import PresetError
from model.spectra.windows import OVERLAP, FrontEnd

_NAME = re.compile(r"[\w.-]+")  # it becomes part of model ids and file names
# Of numbers that are each in bounds; a hundred times and eight times what our presets have.
_MOST_SAMPLES = 1 << 29  # of the windows of a segment
_MOST_WEIGHTS = 1 << 23  # of the warped axis


@dataclass(frozen=True)
class Inference:
    """Frames of the network's hop. A segment is context + core + context; on a GPU `batch` of them go at once.

    `views` are factors on the file's sample rate at which the network is applied to it, each with windows that
    much longer; the output is the estimates' mean. Below `repetition_hz`, masks are changed by what repeats in the
    segment (model/separation/repetition.py); below `spatial_hz`, left and right are filtered together
    (model/separation/spatial.py); 0 leaves either out.
    """

    core_frames: int
    context_frames: int
    batch: int
    views: tuple[float, ...] = (1.0,)
    spatial_hz: float = 0.0
    repetition_hz: float = 0.0


@dataclass(frozen=True)
class Training:
    """`frames` per example; `validate_every` in steps; `patience` in validations; `ema` is its decay.

    `source` is what examples are made from: "waveform", with every augmentation, or "spectrogram", the
    store's spectra scaled, swapped and summed, which costs no transform but allows no other change.
    Every `snapshot_every` steps the average is kept beside the run (never where 0), to average over steps and runs.
    `favour` multiplies how often a dataset is drawn, by name; without, a dataset counts by the root of its hours.
    """

    loss: str
    frames: int
    batch_size: int
    learning_rate: float
    steps: int
    warmup: int
    weight_decay: float
    ema: float
    validate_every: int
    patience: int
    schedule: str
    source: str = "waveform"
    snapshot_every: int = 0
    favour: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MixingSettings:
    """How examples are drawn. Probabilities are per example; levels are in dB.

    `speed` is the largest change of speed (and with it pitch and formants) either way, as a factor
    minus one. `vocal_db` is the range of the vocals' level against the backing, in RMS where both sound;
    `part_db` that of the parts of a backing of several, from one common level; of an accompaniment
    that is summed from parts, the range of a gain on each. `mono` is the share
    of examples whose mixture is the same on both sides. `same_track` is the chance that vocals come with their own
    song's backing, and else that the parts of a backing come from one song, where that song has them all.
    """

    speed: float = 0.0
    vocal_db: tuple[float, float] = (-8.0, 4.0)
    equalise: float = 0.0
    reverberate: float = 0.0
    double: float = 0.0
    compress: float = 0.0
    widen: float = 0.0
    maximise: float = 0.0
    second_voice: float = 0.0
    second_backing: float = 0.0
    without_vocals: float = 0.05
    without_backing: float = 0.02
    same_track: float = 0.0
    distort: float = 0.0
    distort_voice: float = 0.0
    mono: float = 0.0
    part_db: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Preset:
    """A model configuration. `stems` ends with the one that is the mixture minus the others.

    `weights` names the preset whose weights it borrows, if any: the same network under another `inference`.
    """

    name: str
    network: str
    sample_rate: int
    n_fft: int
    hop: int
    bins: int
    channels: int
    stems: tuple[str, ...]
    network_options: dict
    inference: Inference
    training: Training
    mixing: MixingSettings
    weights: str | None = None

    @property
    def front_end(self) -> FrontEnd:
        return FrontEnd(self.sample_rate, self.n_fft, self.hop)

    @property
    def spatial_bins(self) -> int:
        """How many bins, from the lowest on, have their two channels filtered together; the same at every rate."""
        return round(self.inference.spatial_hz * self.n_fft / self.sample_rate)

    @property
    def repetition_bins(self) -> int:
        """How many bins, from the lowest on, have their masks changed by what repeats; the same at every rate."""
        return round(self.inference.repetition_hz * self.n_fft / self.sample_rate)

    @property
    def estimated(self) -> tuple[str, ...]:
        return self.stems[:-1]

    @property
    def mid_side(self) -> bool:
        """Whether the network sees mid and side beside left and right."""
        return bool(self.network_options.get("mid_side", False))

    @property
    def masks(self) -> int:
        """How many masks the network gives: of all stems, or of those it estimates."""
        return self.network_options.get("estimated", len(self.estimated))

    @property
    def interleave(self) -> int:
        """How many sequences at the network's hop the frames at hop n_fft / 4 fall into."""
        return round(self.hop * OVERLAP / self.n_fft)

    def viewing(self, lent: "Preset") -> "Preset":
        """This preset's name and inference settings over the network of the preset whose weights it borrows.

        Args:
            lent: The preset in the weights file, with the network's options as they were trained.
        """
        return dataclasses.replace(lent, name=self.name, inference=self.inference, weights=lent.name)

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict) -> "Preset":
        """A preset from the table of its TOML file, or from a weights file's header, checked.

        Args:
            fields: Every field by name; `inference`, `training` and `mixing` are tables, and lists stand for tuples.

        Raises:
            PresetError: Fields are missing, unknown, out of bounds, or do not fit together.
        """
        if not isinstance(fields, dict):
            raise PresetError("a preset must be a table of fields")
        check_name("the preset name", fields.get("name"))
        check_stems(fields.get("stems"))
        check_numbers(fields, fields["name"])
        try:
            mixing: dict[str, Any]
            seen: dict[str, Any]
            mixing, seen = (
                {name: tuple(value) if isinstance(value, list) else value for name, value in fields[part].items()}
                for part in ("mixing", "inference")
            )
            preset = cls(
                **{
                    **fields,
                    "stems": tuple(fields["stems"]),
                    "inference": Inference(**seen),
                    "training": Training(**fields["training"]),
                    "mixing": MixingSettings(**mixing),
                }
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise PresetError(f"preset {fields['name']} does not fit this version: {excerpt(error)}") from error
        check_types(preset, preset.name)
        if preset.training.source not in ("waveform", "spectrogram"):
            raise PresetError(
                f"preset {preset.name}: source must be waveform or spectrogram, not {excerpt(preset.training.source)}"
            )
        if preset.n_fft % OVERLAP or preset.hop * OVERLAP % preset.n_fft or preset.hop > preset.n_fft:
            raise PresetError(f"preset {preset.name}: hop must be a whole number of quarters of n_fft, and no more")
        if preset.bins > preset.n_fft // 2 + 1:
            raise PresetError(f"preset {preset.name}: a window of {preset.n_fft} has no {preset.bins} bins")
        if not preset.inference.views:
            raise PresetError(f"preset {preset.name}: inference.views has no entry")
        if preset.masks not in (len(preset.stems), len(preset.estimated)):
            raise PresetError(
                f"preset {preset.name}: {preset.masks} masks do not make {len(preset.stems)} stems, "
                "of which the last may be what the others leave"
            )
        inference = preset.inference
        frames = (inference.core_frames + 2 * inference.context_frames) * preset.interleave * len(inference.views)
        rows = preset.network_options.get("rows", 0)
        if frames * preset.n_fft * preset.channels > _MOST_SAMPLES or rows * preset.bins > _MOST_WEIGHTS:
            raise PresetError(f"preset {preset.name}: its segments or its rows are too large for any memory")
        return preset


_PARTS = {"training": Training, "mixing": MixingSettings, "inference": Inference}


def preset_names() -> list[str]:
    folder = resources.files("model") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def borrowing_presets() -> dict[str, str]:
    """Preset → the preset whose weights it uses, for the presets without weights."""
    lenders = {name: _fields(name).get("weights") for name in preset_names()}
    return {name: lender for name, lender in lenders.items() if lender}


def load_preset(name: str, *, continued: bool = False, **settings: object) -> Preset:
    """A preset with some settings replaced.

    Args:
        name: One of `preset_names()`, or the path of a TOML file in their format, whose `name` no shipped preset has.
        continued: Whether its training begins with weights: its section `continue` then overrides `training`.
        settings: Training fields by name, others as `mixing.speed`, `inference.batch` or `network_options.rows`.

    Raises:
        PresetError: There is no such preset or setting, or its values do not fit together.
    """
    fields = _fields(name)
    if lender := fields.get("weights"):
        lent = _fields(lender)
        fields = {**lent, **fields, "inference": {**lent["inference"], **fields["inference"]}}
    continuing = fields.pop("continue", {})
    if continued:
        fields["training"] = {**fields["training"], **continuing}
    for key, value in settings.items():
        part, dot, setting = key.rpartition(".")
        part = part if dot else "training"
        if part not in ("training", "mixing", "inference", "network_options"):
            raise PresetError(
                f"{key}: settings belong to training, mixing, inference or network_options, not to {part}"
            )
        known = [field.name for field in dataclasses.fields(_PARTS[part])] if part in _PARTS else [setting]
        if setting not in known:
            near = difflib.get_close_matches(setting, known, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise PresetError(f"there is no {part} setting {setting}{guess}; there are {', '.join(known)}")
        fields[part][setting] = value
    return Preset.from_dict(fields)


def load_trainable(name: str, *, continued: bool = False, **settings: object) -> Preset:
    """`load_preset` for a training.

    Args:
        name: As for `load_preset`.
        continued: As for `load_preset`.
        settings: As for `load_preset`.

    Raises:
        PresetError: As `load_preset`, or the preset borrows its weights from another.
    """
    preset = load_preset(name, continued=continued, **settings)
    if preset.weights:
        raise PresetError(f"{name} uses the weights of {preset.weights}; train {preset.weights}")
    return preset


def is_preset_file(name: str) -> bool:
    """Whether this is the path of a preset's TOML file and not a preset's name.

    Args:
        name: What the user gave as the preset.
    """
    return name.endswith(".toml")


def _fields(name: str) -> dict:
    """What the TOML of a preset says. Raises PresetError."""
    shipped = preset_names()
    if not is_preset_file(name):
        if name not in shipped:
            near = difflib.get_close_matches(name, shipped, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            raise PresetError(f"{name} is not a preset{guess}; choose one of {', '.join(shipped)}, or name a TOML file")
        return tomllib.loads((resources.files("model") / "presets" / f"{name}.toml").read_text())
    try:
        fields = tomllib.loads(Path(name).expanduser().read_text())
    except OSError as error:
        raise PresetError(f"the preset {name} cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PresetError(f"the preset {name} is not TOML: {error}") from error
    if not _NAME.fullmatch(str(fields.get("name", ""))):
        raise PresetError(f'the preset {name} needs a name of letters, digits, ".", "_" and "-", as in name = "mine"')
    if fields["name"] in shipped:
        raise PresetError(f"the preset {name} has the name of a shipped one, {fields['name']}; give it another name")
    return fields
