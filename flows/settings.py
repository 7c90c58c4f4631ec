"""The settings of each flow: what its workers are told (`tasks/settings.py`) and what only the flow needs.

Adding an option is adding a field here or there. The command line (`flows/cli/options.py`), the flow's signature and
Prefect's form (`flows/running/parameters.py`) follow from it.
"""

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from tasks.settings import (
    Cli,
    Engine,
    MashupSettings,
    ModelRequest,
    OneTraining,
    Scoring,
    Separation,
    Settings,
    Training,
    size_of_memory,
)

Steps = Annotated[int | None, Cli(metavar="N"), Field(ge=1, description="Training steps. Default: the preset's.")]
PresetSettings = Annotated[
    dict[str, Any],
    Cli(("--set",), metavar="NAME=VALUE"),
    Field(description="Replace settings of the preset, e.g. --set batch_size=4 --set mixing.speed=0.1."),
]


Kind = Annotated[
    str | None,
    Cli(metavar="NAME"),
    Field(
        description="The dataset's layout: dsd100, musdb18, musdb18hq, stems, pairs, loose, or one that an installed "
        "package brings. Default: recognised by its folders."
    ),
]


class Scheduler(Settings):
    """Which cluster the work runs on."""

    dask: Annotated[str | None, Cli(metavar="ADDRESS", place=1)] = Field(
        None, description="A Dask scheduler, e.g. tcp://host:8786. Default: UNBRAID_DASK, or this machine."
    )


class Workers(Scheduler):
    """Which cluster, or how many processes of this machine."""

    workers: Annotated[int | None, Cli(metavar="N", place=1)] = Field(
        None,
        ge=1,
        le=1024,
        description="Worker processes on this machine. Default: one per core, or as many as feed its GPU.",
    )
    memory: Annotated[str, Cli(metavar="SIZE", place=1), AfterValidator(size_of_memory)] = Field(
        "auto",
        description="Memory limit of each worker process, e.g. 4GB; a process that comes near it is ended. "
        "Default: a share of the machine's memory.",
    )

    @property
    def cluster(self) -> dict[str, Any]:
        """As `flows.running.cluster.cluster` takes them."""
        return {"address": self.dask, "workers": self.workers, "memory": self.memory}


class SeparateOptions(Workers, Separation):
    """A catalog is separated."""

    source: Annotated[str | tuple[str, ...], Cli(argument=True, several=True)] = Field(
        min_length=1,
        description="An audio file, a folder, a glob, a dataset, or a manifest (.csv or .parquet with a column path); "
        "or several of these.",
    )
    out: Annotated[str, Cli(("--out", "-o"), metavar="FOLDER", place=-1)] = Field(
        "separated", min_length=1, description="Folder for stems, metrics, reports and run records."
    )
    retry_failed: bool = Field(False, description="Try tracks again that failed in an earlier run.")
    allow_http: bool = Field(
        False, description="Fetch what a manifest names at http:// and other servers than object stores."
    )
    force: bool = Field(False, description="Do every track again, also those that are done.")
    since: Annotated[datetime.datetime | None, Cli(metavar="DATE")] = Field(
        None, description="Skip files that were not modified since then."
    )
    where: Annotated[str | None, Cli(metavar="SQL")] = Field(
        None,
        description="Consider only tracks of which a row in OUT, of a stem on the disk or of a failure, fulfils this "
        'condition, e.g. "predicted_sdr < 4". With --force also those that this model has done.',
    )
    limit: Annotated[int | None, Cli(metavar="N")] = Field(
        None, ge=1, description="Do at most N tracks; the next run goes on."
    )
    prune: bool = Field(
        False, description="Remove stems and rows of tracks that SOURCE no longer lists; see `unbraid prune`."
    )
    dry_run: bool = Field(False, description="Say what would be done, and do nothing.")


class PruneOptions(Settings):
    """Tracks that are no longer in the catalog leave an output."""

    out: Annotated[str, Cli(argument=True, place=-1)] = Field(description="The output to remove tracks from.")
    source: Annotated[str | tuple[str, ...], Cli(argument=True, several=True)] = Field(
        description="The catalog that the output is of, as `unbraid separate` takes it; or several."
    )
    yes: Annotated[bool, Cli(("--yes", "-y"))] = Field(
        False, description="Remove them; without it they are only listed."
    )
    unlisted: bool = Field(
        False, description="Remove whatever SOURCE does not list, even if its file exists or lies elsewhere."
    )
    empty: bool = Field(False, description="SOURCE is meant to be empty, or is gone for good: every track may go.")
    allow_http: bool = Field(False, description="As in `unbraid separate`.")


class EvaluateOptions(Workers, Scoring, ModelRequest):
    """A model is scored on a dataset."""

    dataset: Annotated[str, Cli(argument=True)] = Field(description="The dataset's folder.")
    out: Annotated[str, Cli(metavar="FOLDER")] = Field(description="Folder for metrics and reports.")
    split: Literal["test", "train", "all"] = Field("test", description="Which of the dataset's splits to score.")
    kind: Kind = None


class IngestOptions(Workers):
    """A dataset is written into a zarr store."""

    dataset: Annotated[str, Cli(argument=True)] = Field(description="The dataset's folder.")
    store: Annotated[str, Cli(metavar="STORE")] = Field(description="The zarr store to make or to add to.")
    kind: Kind = None
    name: Annotated[str | None, Cli(metavar="NAME")] = Field(
        None, description="The dataset's name in the store. Default: its folder's name."
    )
    split: Literal["train", "test"] = Field("train", description="The split of datasets whose layout has no splits.")
    stem: Annotated[str | None, Cli(metavar="NAME")] = Field(
        None, description="For a folder of loose files: which stem they are, e.g. vocals or accompaniment."
    )
    test_artists: Annotated[tuple[str, ...], Cli(("--test-artist",), metavar="NAME")] = Field(
        (), description="Keep this artist's tracks for the test split; may be repeated."
    )
    drop_leaked: bool = Field(False, description="Leave out training copies of songs that are in a test split.")
    spectrograms: Annotated[bool, Cli(("--spectrograms/--waveforms-only",))] = Field(
        False, description="Also keep complex STFTs, for --set source=spectrogram; takes twelve times the disk space."
    )


class TrainOptions(Scheduler, OneTraining):
    """A preset is trained on a store."""

    run: Annotated[str | None, Cli(metavar="FOLDER")] = Field(
        None, description="The run's folder. Default: STORE.runs/PRESET-seedSEED."
    )
    steps: Steps = None
    settings: PresetSettings = {}
    publish: bool = Field(True, description="Register the weights as a model.")
    promote: bool = Field(False, description="Make the result the champion of its preset.")


class RetrainOptions(Workers, Training):
    """A challenger is trained, and takes the champion's place if it is better."""

    test: Annotated[str, Cli(metavar="DATASET")] = Field(
        description="The dataset whose test split decides; with --score predicted, any music, as `separate` takes it."
    )
    score: Literal["measured", "predicted"] = Field(
        "measured",
        description="What decides: cSDR against the dataset's stems or, where there are none, the SDR that each model "
        "predicts of its own stems, which reflects its doubt, but not its confident mistakes.",
    )
    out: Annotated[str, Cli(metavar="FOLDER")] = Field(description="Folder for metrics and the decision.")
    new: Annotated[tuple[str, ...], Cli(metavar="DATASET")] = Field(
        (), description="Ingest this into STORE first; may be repeated."
    )
    scratch: bool = Field(False, description="Train from random weights instead of the champion's.")
    steps: Steps = None
    settings: PresetSettings = {}
    split: Literal["test", "train", "all"] = Field("test", description="Which of the dataset's splits decides.")
    least_rise: Annotated[float, Cli(metavar="DB")] = Field(
        0.1, ge=0.0, description="The smallest median rise of vocals cSDR, in dB, that is worth a promotion."
    )
    spectrograms: Annotated[bool, Cli(("--spectrograms/--waveforms-only",))] = Field(
        False, description="As in `unbraid ingest`, for --new."
    )
    engine: Engine = Field("sdr", description="What scores; see `unbraid evaluate`.")


class TuneOptions(Workers, Training):
    """A preset's settings are searched."""

    out: Annotated[str, Cli(metavar="FOLDER")] = Field(description="Folder for the trials' table and trainings.")
    space: Annotated[tuple[str, ...], Cli(metavar="SETTING=VALUES")] = Field(
        min_length=1,
        description="learning_rate=3e-4..3e-3 (a range) or batch_size=4,8,16 (choices); may be repeated.",
    )
    search: Literal["random", "grid"] = Field("random", description="Draw trials, or try every combination.")
    trials: Annotated[int, Cli(metavar="N")] = Field(8, ge=1, description="How many trials of a random search.")
    steps: Annotated[int, Cli(metavar="N")] = Field(200, ge=1, description="Training steps of each trial.")


class MashupOptions(Workers, ModelRequest, MashupSettings):
    """The vocals of one song over the accompaniment of another."""

    vocals_of: Annotated[str, Cli(argument=True)] = Field(description="The song whose vocals are taken.")
    accompaniment_of: Annotated[str, Cli(argument=True)] = Field(description="The song they are laid over.")


class FindMashupsOptions(Workers, MashupSettings):
    """The best pairs of a separated catalog."""

    top: Annotated[int, Cli(metavar="N")] = Field(20, ge=1, description="With --find: how many pairs to print.")
    render: Annotated[int, Cli(metavar="N")] = Field(0, ge=0, description="With --find: make the N best pairs.")
