"""What a run over a cluster is refused for before it starts."""

import os
import platform
import socket
import threading

import pytest

from flows.running import cluster as module
from flows.running.cluster import Cluster, ClusterError, cluster
from tasks.settings import ModelRequest


class Workers:
    """Stands for a Dask client whose workers have files of their own."""

    def __init__(self, files):
        self._files = files

    def run(self, _function, paths):
        return {"tcp://far:2": [path for path in paths if path not in self._files]}


def test_a_worker_that_does_not_see_the_output_is_named():
    with pytest.raises(ClusterError, match="worker tcp://far:2 does not see /data/out"):
        Cluster(Workers({"/data/songs"}), 1, "tcp://far:1").must_see("/data/songs", "/data/out")


def test_objects_of_a_store_are_not_checked_on_workers():
    Cluster(Workers({"/data/songs"}), 1, "tcp://far:1").must_see("/data/songs", "s3://bucket/out")


def test_a_scheduler_that_accepts_and_is_silent_is_a_sentence(monkeypatch):
    monkeypatch.setattr(module, "_GREET_SECONDS", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        accepted = []
        threading.Thread(target=lambda: accepted.append(silent.accept()), daemon=True).start()
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no Dask scheduler answers at {address}"), cluster(address):
            pytest.fail("it started")
        for connection, _ in accepted:
            connection.close()


@pytest.mark.skipif(platform.system() != "Linux", reason="/dev/shm is Linux's")
def test_shared_memory_that_cannot_be_written_is_a_sentence_at_once(monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/shm" and access(path, mode))
    with pytest.raises(ClusterError, match="/dev/shm cannot be written to"), cluster(workers=1):
        pytest.fail("it started")


def test_a_worker_that_does_not_see_the_models_file_says_so_before_the_run(tmp_path, monkeypatch):
    """Its own error would be that the file, which the user sees, is not there."""
    import distributed

    class Client(Workers):
        def __init__(self, *_, **__):
            super().__init__({"/data/songs"})

        def nthreads(self):
            return {"tcp://far:2": 1}

        def register_plugin(self, plugin):
            pytest.fail("the worker was set up")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(distributed, "Client", Client)
    monkeypatch.setattr("flows.running.cluster._greet", lambda address: None)
    weights = str(tmp_path / "x.safetensors")
    with (
        pytest.raises(ClusterError, match=r"does not see .*x\.safetensors; what a run reads"),
        cluster("tcp://far:1", model=ModelRequest(model=weights)),
    ):
        pytest.fail("the run began")
