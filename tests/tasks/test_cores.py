import pytest

from tasks import cores
from tasks.cores import Sharing, local_gpu, shared_gpu, shared_out

GB = 1 << 30


@pytest.mark.parametrize(
    ("asked", "sharing"),
    [
        ({}, Sharing(16, 1, 1)),
        ({"workers": 4}, Sharing(4, 1, 4)),
        ({"tracks": 2}, Sharing(2, 1, 8)),
        ({"workers": 32, "tracks": 5}, Sharing(5, 1, 3)),
    ],
)
def test_on_a_cpu_a_process_has_one_track_and_its_share_of_the_cores(asked, sharing):
    assert shared_out(16, **asked) == sharing


@pytest.mark.parametrize(
    ("machine", "asked", "sharing"),
    [
        ((16, 128 * GB, 80 * GB), {}, Sharing(4, 5, 1)),  # the H100 beside 16 cores
        ((16, 128 * GB, 8 * GB), {}, Sharing(2, 8, 1)),  # two contexts fit
        ((64, 16 * GB, 80 * GB), {}, Sharing(5, 8, 1)),
        ((2, 4 * GB, 2 * GB), {}, Sharing(1, 3, 1)),
        ((16, 128 * GB, 80 * GB), {"workers": 1}, Sharing(1, 8, 1)),
        ((16, 128 * GB, 80 * GB), {"tracks": 1}, Sharing(1, 1, 1)),
        ((16, 128 * GB, 80 * GB), {"tracks": 7}, Sharing(2, 4, 1)),
        ((16, 128 * GB, 80 * GB), {"tracks": 3, "workers": 8}, Sharing(3, 1, 1)),
    ],
)
def test_on_a_gpu_few_processes_have_several_tracks_each(machine, asked, sharing):
    assert shared_gpu(*machine, **asked) == sharing


def test_torch_is_asked_for_a_gpu_only_where_a_driver_or_the_user_speaks_of_one(monkeypatch):
    asked = []
    monkeypatch.setattr("model.separation.arithmetic.resolved_device", lambda device: asked.append(device) or "cuda")
    monkeypatch.setattr(cores, "_driver", lambda: False)
    assert (local_gpu("cpu"), local_gpu("auto")) == (None, None)
    assert not asked
    assert local_gpu("cuda") == "cuda"
    monkeypatch.setattr(cores, "_driver", lambda: True)
    assert local_gpu("auto") == "cuda"
    assert local_gpu("cpu") is None


def test_a_process_that_may_see_no_gpu_has_none(monkeypatch):
    monkeypatch.setattr(cores.platform, "system", lambda: "Linux")
    monkeypatch.setattr(cores.os.path, "exists", lambda path: path == "/dev/nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert cores._driver()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not cores._driver()
