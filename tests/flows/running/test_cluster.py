from types import SimpleNamespace

import pytest

from flows.running import cluster
from flows.running.cluster import GPU_TO_SEPARATE, GPU_TO_TRAIN, Cluster, ClusterError, sharing_here
from tasks.cores import Sharing
from tasks.settings import ModelRequest


def workers(*resources):
    told = {str(n): {"nthreads": 1, "resources": offered} for n, offered in enumerate(resources)}
    return SimpleNamespace(scheduler_info=lambda n_workers: {"workers": told})


@pytest.mark.parametrize(
    ("offered", "address", "requested", "device"),
    [
        ([{}, {"GPU": 1}], "tcp://far:1", "auto", "cuda"),
        ([{}, {"GPU": 1}], "tcp://far:1", "cpu", "cpu"),
        ([{}, {}], "tcp://far:1", "auto", "cpu"),  # some of them might have one and not offer it
        ([{}], None, "auto", "auto"),
        ([{}], None, "cuda", "cuda"),
        ([{"GPU": 1}], "tcp://far:1", "mps", "mps"),
    ],
)
def test_what_is_compared_runs_on_one_device(offered, address, requested, device):
    assert Cluster(workers(*offered), 2, address).device(requested) == device


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_gpu_that_no_worker_offers_is_a_sentence(device):
    with pytest.raises(ClusterError, match="unbraid worker --gpu"):
        Cluster(workers({}), 1, "tcp://far:1").device(device)


def test_workers_of_a_gpu_are_few_and_take_several_tracks_but_those_of_another_project_one(monkeypatch):
    monkeypatch.setattr(cluster, "local_gpu", lambda device: None if device == "cpu" else "cuda")
    monkeypatch.setattr(cluster, "gpu_bytes", lambda device: 80 << 30)
    monkeypatch.setattr(cluster, "_memory_here", lambda: 128 << 30)
    monkeypatch.setattr(cluster, "available_cores", lambda: 16)
    assert sharing_here(ModelRequest(device="cuda")) == Sharing(4, 5, 1)
    assert sharing_here(ModelRequest(device="cpu")) == Sharing(16, 1, 1)
    assert sharing_here(None) == Sharing(16, 1, 1)
    assert sharing_here(ModelRequest(model="demucs:htdemucs")) == Sharing(4, 1, 1)


def test_a_training_takes_a_gpu_whole_and_separations_share_it():
    assert GPU_TO_TRAIN["GPU"] == 1
    assert 8 * GPU_TO_SEPARATE["GPU"] <= 1
