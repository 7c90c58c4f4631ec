"""What a training leaves in the registry."""

import contextlib

import torch

from flows import train as module
from flows.running.cluster import Cluster
from model.checkpoint import Weights, build
from model.preset import load_preset
from storage.registry import Registry
from tasks.training.train import TrainReport
from tests.model.test_preset import written


def test_a_preset_of_the_users_own_is_registered_under_its_name(tmp_path, monkeypatch, waveform_store):
    monkeypatch.setenv("UNBRAID_MODELS", str(tmp_path / "models"))
    preset = written(tmp_path, name="mine")
    loaded = load_preset(preset)
    weights = tmp_path / "best.safetensors"
    weights.write_bytes(Weights(loaded, build(loaded).state_dict(), {}).to_bytes(torch.float16))
    report = TrainReport("mine-0", str(weights), 1, 1, 0.0, 0.0, "all steps done")
    monkeypatch.setattr(module, "cluster", lambda *_, **__: contextlib.nullcontext(Cluster(None, 1)))
    monkeypatch.setattr(module, "train_phase", lambda *_: report)
    registered = module.train(waveform_store, preset=preset, run=str(tmp_path / "run"))
    assert registered.model_id.startswith("mine-")
    assert Registry(tmp_path / "none").champions() == {"mine": registered.model_id}
    assert not list(tmp_path.glob("*.toml-*"))
