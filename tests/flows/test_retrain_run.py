"""Retraining and searching as whole runs, on made songs."""

import json

import pytest

from storage.files.layout import OutputLayout
from storage.results.rows import read_rows
from tests.presets import write_own_preset

pytestmark = [pytest.mark.proof, pytest.mark.whole, pytest.mark.xdist_group("flows")]
SMALL = {"batch_size": 2, "frames": 64, "warmup": 0, "validate_every": 4}


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("UNBRAID_MODELS", str(tmp_path / "models"))
    from storage.registry import Registry

    return Registry(tmp_path / "none")


def test_a_retraining_ingests_trains_and_lets_the_gate_decide(dsd100, models, tmp_path):
    from flows.retrain import retrain

    preset = write_own_preset(tmp_path)

    def run(**changes):
        return retrain(
            str(tmp_path / "s.zarr"), str(dsd100), str(tmp_path / "out"), new=[str(dsd100)], preset=str(preset),
            steps=4, settings=SMALL, device="cpu", spectrograms=False, workers=1, **changes,
        )  # fmt: skip

    first = run()
    assert first.promoted
    assert first.champion is None
    assert models.find("mine").model_id == first.challenger
    second = run(seed=1)
    assert second.champion == first.challenger
    assert second.challenger != first.challenger
    assert second.tracks == 1
    assert not second.promoted
    assert "1 songs are too few" in second.reason
    assert second.rise == pytest.approx(second.challenger_vocals - second.champion_vocals)
    assert (first.looks, second.looks) == (0, 1)  # without a champion nobody looked
    assert models.find("mine").model_id == first.challenger
    again = run(seed=1)
    assert again.challenger == second.challenger
    assert again.looks == 2
    assert models.find(first.challenger).model_id == first.challenger
    decisions = read_rows(OutputLayout(tmp_path / "out"), "decisions").to_pylist()
    assert [row["challenger"] for row in decisions].count(second.challenger) == 2


def test_where_there_are_no_stems_predictions_decide_and_say_that_they_are_predictions(
    dsd100, models, tmp_path, monkeypatch
):
    from types import SimpleNamespace

    import flows.retrain
    from storage.audio.reader import read
    from storage.audio.writer import write

    (mixture,) = (dsd100 / "Mixtures" / "Test").glob("*/mixture.wav")
    audio, rate = read(mixture)
    for second in range(5):
        write(tmp_path / "music" / f"{second}.wav", audio[:, second * rate : (second + 1) * rate], rate)
    champion = models.add("cnn", calibrated_weights(5.0), "", champion=True)
    challenger = models.add("cnn", calibrated_weights(6.0), "")
    monkeypatch.setattr(flows.retrain, "train", lambda **_: SimpleNamespace(model_id=challenger))
    monkeypatch.setattr(flows.retrain, "_folder", lambda *_: "unused")
    monkeypatch.setattr(flows.retrain, "check_store", lambda *_: None)
    decision = flows.retrain.retrain(
        str(tmp_path / "s.zarr"), str(tmp_path / "music"), str(tmp_path / "out"), preset="cnn", device="cpu", workers=1,
        score="predicted",
    )  # fmt: skip
    assert (decision.score, decision.promoted, decision.champion, decision.tracks) == ("predicted", True, champion, 5)
    assert decision.rise == pytest.approx(1.0)
    assert "not measured" in decision.reason
    assert models.find("cnn").model_id == challenger
    assert {path.name for path in (tmp_path / "out" / "models").iterdir()} == {challenger, champion}


def calibrated_weights(sdr: float) -> bytes:
    """Weights of `cnn` that predict the same SDR of vocals for every song."""
    import torch

    from model.checkpoint import Weights, build
    from model.preset import load_preset
    from model.separation.prediction import FEATURES, WINDOW_FEATURES, Calibration, StemFit

    torch.manual_seed(0)
    preset = load_preset("cnn")
    fit = StemFit((sdr, *[0.0] * len(FEATURES)), (sdr, *[0.0] * len(WINDOW_FEATURES)), -1.0, 1.0, 1.0, 9)
    return Weights(preset, build(preset).state_dict(), {}, {"cnn": Calibration({"vocals": fit}).to_dict()}).to_bytes()


def test_a_search_writes_every_trial_the_best_first(dsd100, models, tmp_path):
    from flows.ingest import ingest
    from flows.tune import tune

    ingest(str(dsd100), str(tmp_path / "s.zarr"), spectrograms=False, workers=1)
    space = ["learning_rate=0.0001,0.001", "batch_size=2", "frames=64"]
    rows = tune(
        str(tmp_path / "s.zarr"), str(tmp_path / "out"), space, preset="jansson", search="grid", steps=2, device="cpu",
        workers=1,
    )  # fmt: skip
    assert [row.csdr for row in rows] == sorted((row.csdr for row in rows), reverse=True)
    assert {json.loads(row.settings)["learning_rate"] for row in rows} == {0.0001, 0.001}
    assert len(read_rows(OutputLayout(tmp_path / "out"), "trials")) == 2
