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
    """A preset with settings replaced, checked to be one that can be trained.

    Args:
        name: A preset's name, or the path of a TOML file in the presets' format.
        settings: Training fields by name, others as `mixing.speed` or `network_options.rows`.
        continued: Whether the training begins with a model's weights, for which a preset may have other settings.

    Raises:
        PresetError: There is no such preset or setting, the values do not fit together, the preset borrows its
            weights, or its network lacks an option.
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
    """Check that a preset can be trained with every value of a search; of a range its two ends are tried.

    Args:
        preset: The preset's name.
        space: The settings to search, each checked alone.

    Raises:
        PresetError: A dimension is not a setting of the preset, or one of its values does not fit.
    """
    for dimension in space:
        for value in dimension.choices or (dimension.low, dimension.high):
            trainable(preset, {dimension.setting: value})


def check_store(store: str, preset: Preset) -> None:
    """Check that a preset can be trained on a store.

    Args:
        store: Path or URL of the store.
        preset: The preset to train.

    Raises:
        StoreError: There is no such store, its train split is empty, or it lacks a stem or the preset's spectra.
    """
    tracks = Store.open(location(store)).tracks("train")
    if not tracks:
        raise StoreError(f"{store} has no tracks in its train split; ingest some with --split train")
    example_source(store, tracks, preset, seed=0)


def check_folder(folder: str, *, resume: bool) -> None:
    """Check that a run's folder is free, or holds a run to continue.

    Args:
        folder: The run's folder, which need not exist.
        resume: Whether the command continues the run in it.

    Raises:
        StoreError: It holds a training run, and `resume` is off.
    """
    if not resume and TrainingLayout(Path(folder)).checkpoint.exists():
        raise StoreError(f"{folder} holds a training run already; add --resume or choose another --run")
