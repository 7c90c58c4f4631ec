"""A search over a preset's settings: which trials there are, and one of them on a worker."""

import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.errors import ModelError, PresetError
from model.preset import load_preset
from storage.errors import StorageError
from storage.results.metrics import FAILED, OK
from storage.results.training_rows import TrialRow
from tasks.settings import Training
from tasks.training.train import TrainRequest, train


@dataclass(frozen=True)
class Dimension:
    """A setting and where its values come from: `choices`, or a range `low` … `high`.

    Args:
        setting: The setting's name, as `load_preset` takes it.
        choices: The values to choose from; empty for a range.
        low: The low end of the range.
        high: Its high end.
    """

    setting: str
    choices: tuple = ()
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Dimension":
        """A dimension as the command line writes it.

        Args:
            text: `setting=a,b,c` or `setting=low..high`; values are JSON, or text where they are not.

        Raises:
            PresetError: It is neither, or a range's low end is not below its high end.
        """
        setting, equals, values = text.partition("=")
        try:
            if not equals or not values:
                raise ValueError
            if ".." in values:
                low, high = (json.loads(end) for end in values.split("..", 1))
                if not low < high:
                    raise ValueError
                return cls(setting, low=low, high=high)
            return cls(setting, choices=tuple(_value(choice) for choice in values.split(",")))
        except (ValueError, TypeError) as error:
            raise PresetError(f"{text} is not a dimension; write setting=a,b,c or setting=low..high") from error

    def draw(self, random: np.random.Generator) -> object:
        """A choice, or a number of the range: uniform in its logarithm where both ends are positive.

        Args:
            random: The source of chance.

        Returns:
            One of the choices as it is; of a range an integer where both its ends are, else a float of four
            significant digits.
        """
        if self.choices:
            return self.choices[int(random.integers(len(self.choices)))]
        if self.low > 0:
            number = float(np.exp(random.uniform(np.log(self.low), np.log(self.high))))
        else:
            number = float(random.uniform(self.low, self.high))
        return round(number) if isinstance(self.low, int) and isinstance(self.high, int) else float(f"{number:.4g}")


def trials(space: list[Dimension], search: str, number: int, seed: int) -> list[dict]:
    """Settings of each trial: `number` drawn at random, none twice, or the complete grid of choices.

    Args:
        space: The settings to search.
        search: "grid" for every combination of choices, otherwise trials are drawn at random.
        number: How many trials to draw at random; there are fewer where the space has fewer.
        seed: Of what is drawn; a grid does not depend on it.

    Returns:
        Setting → value, per trial.

    Raises:
        PresetError: The space is empty, or a grid has a range in it.
    """
    if not space:
        raise PresetError("there is nothing to search; give a --space")
    if search == "grid":
        ranges = [dimension.setting for dimension in space if not dimension.choices]
        if ranges:
            raise PresetError(f"a grid needs choices, not a range, for {', '.join(ranges)}")
        return [
            dict(zip([d.setting for d in space], values, strict=True))
            for values in itertools.product(*(d.choices for d in space))
        ]
    random = np.random.default_rng(seed)
    trials_by_settings: dict[str, dict] = {}
    for _ in range(50 * number):
        drawn = {dimension.setting: dimension.draw(random) for dimension in space}
        trials_by_settings.setdefault(json.dumps(drawn, sort_keys=True), drawn)
        if len(trials_by_settings) == number:
            break
    return list(trials_by_settings.values())


class TuneSettings(Training):
    """What all trials share. `folder` gets a folder for each."""

    folder: str
    steps: int
    threads: int | None = None


def run_trials(settings: TuneSettings, numbered: list[tuple[int, dict]]) -> list[TrialRow]:
    """Train each trial to its end; one that was killed before goes on. Settings that fit nothing are a failed row.

    Args:
        settings: What all trials share.
        numbered: (number of the trial, its settings), which may replace the steps too.

    Returns:
        One row per trial, with the best validation cSDR in dB, or with the error.
    """
    rows = []
    for trial, chosen in numbered:
        began = time.perf_counter()
        shared: dict[str, Any] = {
            "trial": trial,
            "preset": settings.preset,
            "settings": json.dumps(chosen, sort_keys=True),
        }
        try:
            load_preset(settings.preset, **chosen)
            overrides = {"steps": settings.steps, "validate_every": settings.steps, **chosen}
            request = settings.part(
                TrainRequest,
                folder=str(Path(settings.folder) / f"trial-{trial:03d}"),
                overrides=tuple(sorted(overrides.items())),
                resume=True,
            )
            report = train(request)
        except (StorageError, ModelError, ValueError, RuntimeError, TypeError) as error:
            seconds = time.perf_counter() - began
            rows.append(TrialRow(**shared, status=FAILED, error=f"{type(error).__name__}: {error}", seconds=seconds))
            continue
        rows.append(
            TrialRow(
                **shared,
                status=FAILED if report.diverged else OK,
                error=report.stopped if report.diverged else None,
                csdr=report.best_db,
                best_step=report.best_step,
                steps=report.steps,
                seconds=report.seconds,
                weights=report.weights,
            )
        )
    return rows


def lost_trial(settings: TuneSettings, numbered: tuple[int, dict], why: str) -> TrialRow:
    """The row of a trial that took its worker with it.

    Args:
        settings: What all trials share.
        numbered: (number of the trial, its settings).
        why: Why it was lost, for the user.
    """
    return TrialRow(
        numbered[0], settings.preset, json.dumps(numbered[1], sort_keys=True), FAILED, error=f"LostTrial: {why}"
    )


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
