"""The recipe's one script, on made songs for some seconds: audio in, a bench, a training, weights and log out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.checkpoint import Weights
from storage.sources.datasets import discover

pytestmark = [pytest.mark.proof, pytest.mark.whole, pytest.mark.xdist_group("flows")]
ROOT = Path(__file__).resolve().parents[2]


def test_the_recipe_goes_from_audio_to_weights_and_again_does_nothing_twice(dsd100, tmp_path):
    for track in discover(dsd100):
        song = tmp_path / "data" / "musdb18_7s" / "train" / track.name
        song.mkdir(parents=True)
        for stem, source in track.stems.items():
            (song / f"{stem}.wav").symlink_to(source.path)
    command = ["bash", "bench/recipe.sh", "--work", str(tmp_path / "work"), "--data", str(tmp_path / "data")]
    command += ["--device", "cpu", "--minutes", "0.02", "--preset", "cnn"]
    environment = {
        **os.environ,
        "UNBRAID": f"{sys.executable} -m flows.cli",
        "PYTHON": sys.executable,
        "BENCH_STEPS": "4",
        "UNBRAID_MODELS": str(tmp_path / "models"),
    }
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    steps = int((tmp_path / "work" / "cnn.steps").read_text())
    weights = Weights.from_bytes((tmp_path / "work" / "cnn.safetensors").read_bytes(), "cnn")
    lines = [json.loads(line) for line in (tmp_path / "work" / "cnn.jsonl").read_text().splitlines()]
    assert weights.preset.training.steps == steps
    assert [line["step"] for line in lines if "csdr" in line] == [steps]  # validated once: the second time did nothing
    assert weights.record["datasets"]["musdb18_7s"]["tracks"] >= 2
    assert "examples:" in (tmp_path / "work" / "cnn.bench").read_text()
