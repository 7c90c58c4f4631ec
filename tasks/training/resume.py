"""How far a training run has come, and whether another command may go on with it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from model.errors import PresetError
from model.preset import Preset
from storage.errors import StoreError

ALL_STEPS = "all steps done"
NO_IMPROVEMENT = "no improvement"
_MEANING = {
    "seed": "another seed",
    "start": "another start",
    "store": "other tracks: it is another store, or one that has changed",
}


@dataclass
class RunState:
    """How far a run has come; it is kept in the header of its checkpoint.

    Attributes:
        best_db: Mean cSDR of the best weights over the validation tracks, in dB.
        best_step: The step of the best weights, −1 before the first validation.
        seconds: Time spent on steps, that of earlier commands included.
        stopped: Why it ended, empty while it goes on.
        diverged: Whether it ended because the loss or its gradient was no longer finite.
        calibrated: Whether the predicted scores of its best weights have been calibrated, or there are too few songs.
        attempt: The mark of the command that works on it, empty where it has none.
        curve: (step, mean cSDR in dB) of every validation.
    """

    best_db: float = -1e9
    best_step: int = -1
    seconds: float = 0.0
    stopped: str = ""
    diverged: bool = False
    calibrated: bool = False
    attempt: str = ""
    curve: list[tuple[int, float]] = field(default_factory=list)

    def finished(self, step: int, steps: int) -> bool:
        """Is there nothing left to do? More `steps` lengthen a run that had done all of its steps.

        Args:
            step: How many steps the run has done.
            steps: How many the preset asks for now.
        """
        return bool(self.stopped) and not (self.stopped == ALL_STEPS and step < steps)


def resumed_state(root: Path, header: dict, origin: dict, *, resume: bool, attempt: str) -> RunState:
    """The state of the run in a folder, if the command at hand may go on with it.

    Args:
        root: The run's folder, for the sentence.
        header: The header of its checkpoint.
        origin: What the command would begin a run with: preset (as a dict), seed, start, store.
        resume: Whether the command is to go on with a run (`--resume`).
        attempt: The mark of the command; a run that it has begun itself may go on without `resume`.

    Raises:
        StoreError: It must not go on, or was begun with something else.
    """
    state = RunState(**header["run"])
    if not resume and (not attempt or state.attempt != attempt):
        raise StoreError(f"{root} holds a training run already; add --resume or choose another --run")
    before = header.get("origin", {})
    differing = [meaning for key, meaning in _MEANING.items() if key in before and before[key] != origin[key]]
    settings = _differing(before.get("preset", header.get("preset", {})), origin["preset"])
    if settings:
        differing.insert(0, f"other settings ({', '.join(settings)})")
    if differing:
        raise StoreError(f"{root} was started with {' and '.join(differing)}; repeat those, or choose another --run")
    return state


def _differing(before: dict, now: dict) -> list[str]:
    """The names of settings that are not the same; more steps are no difference, but a longer run."""
    try:
        before = json.loads(json.dumps(Preset.from_dict(before).to_dict()))
    except PresetError:
        return ["an older version's"]
    old, new = _flat(before), _flat(json.loads(json.dumps(now)))
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return [name for name in names if name != "training.steps" or (new.get(name) or 0) < (old.get(name) or 0)]


def _flat(fields: dict, prefix: str = "") -> dict:
    flat: dict = {}
    for name, value in fields.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
