"""What cannot be scored is a sentence, and costs its own track alone."""

import numpy as np
import pytest
import soundfile as sf

from model.errors import ModelError
from storage.sources.datasets import discover
from tasks import evaluate
from tasks.evaluate import EvaluateSettings, evaluate_batch
from tasks.score import score_stems
from tests.signals import noise

RATE = 8000


def test_stems_with_nothing_in_common_are_named():
    with pytest.raises(ModelError, match="nothing to score: the references are drums, bass, the estimates vocals"):
        score_stems({"drums": noise(1, RATE), "bass": noise(1, RATE)}, {"vocals": noise(1, RATE)}, RATE)


def test_results_of_other_systems_without_vocals_to_compare_them_with_fail_their_track_alone(tmp_path, monkeypatch):
    for name, stem in (("A - One", "drums"), ("B - Two", "vocals")):
        for file in (f"{stem}.wav", "bass.wav", "systems/XYZ.wav"):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, noise(1, 2 * RATE).T, RATE)
    separated = {"vocals": np.zeros((1, 2 * RATE), np.float32)}
    monkeypatch.setattr(evaluate, "run_separator", lambda *_: None)
    monkeypatch.setattr(evaluate, "separate_with_evidence", lambda *_: (separated, None))
    monkeypatch.setattr(evaluate, "predicted_columns", lambda *_: {"vocals": {}})
    monkeypatch.setattr(evaluate, "arithmetic_columns", lambda *_: {})
    settings = EvaluateSettings(model_id="m", stems=("vocals", "accompaniment"), engine="sdr")
    rows = evaluate_batch(settings, discover(tmp_path, kind="stems"))
    failed = [row for row in rows if row.status == "failed"]
    assert [(row.track_id.rpartition("/")[2], row.error_class) for row in failed] == [("A - One", "AudioError")]
    assert "has results of other systems but no vocals; add the vocals or remove systems/" in failed[0].error
    assert "system:XYZ" in {row.model_id for row in rows}
