"""What a training can be refused for before anything is started for it."""

import inspect
from pathlib import Path

from model.errors import PresetError
from model.networks import NETWORKS
from model.preset import Preset, load_trainable
from storage.errors import StoreError
from storage.files.layout import TrainingLayout
from storage.files.location import location
from storage.store import Store
from tasks.training.examples import example_source
from tasks.training.tune import Dimension


def trainable(name: str, settings: dict[str, object], *, continued: bool = False) -> Preset:
    """A preset with settings replaced, whose network takes its options; `continued` where it begins with weights.

    Raises:
        PresetError: There is no such preset or setting, or the values do not fit together.
    """
    preset = load_trainable(name, continued=continued, **settings)
    known = set(inspect.signature(NETWORKS[preset.network]).parameters) - {"bins"}
    unknown = sorted(set(preset.network_options) - known)
    if unknown:
        raise PresetError(
            f"the network of preset {name} has no option {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    return preset


def check_space(preset: str, space: list[Dimension]) -> None:
    """Raise PresetError where a dimension is no setting of the preset, or one of its values does not fit."""
    for dimension in space:
        for value in dimension.choices or (dimension.low, dimension.high):
            trainable(preset, {dimension.setting: value})


def check_store(store: str, preset: Preset) -> None:
    """Raise StoreError where a preset cannot be trained on a store: no such store, a stem missing, no spectra."""
    tracks = Store.open(location(store)).tracks("train")
    if not tracks:
        raise StoreError(f"{store} has no tracks in its train split; ingest some with --split train")
    example_source(store, tracks, preset, seed=0)


def check_folder(folder: str, *, resume: bool) -> None:
    """Raise StoreError where a run's folder holds a training that is not to go on."""
    if not resume and TrainingLayout(Path(folder)).checkpoint.exists():
        raise StoreError(f"{folder} holds a training run already; add --resume or choose another --run")
