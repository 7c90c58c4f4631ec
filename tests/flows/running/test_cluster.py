from types import SimpleNamespace

import pytest

from flows.running.cluster import Cluster, ClusterError


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
    ],
)
def test_what_is_compared_runs_on_one_device(offered, address, requested, device):
    assert Cluster(workers(*offered), 2, address).device(requested) == device


def test_a_gpu_that_no_worker_offers_is_a_sentence():
    with pytest.raises(ClusterError, match="unbraid worker --gpu"):
        Cluster(workers({}), 1, "tcp://far:1").device("cuda")
