"""What a network runs on, on machines that this one is not."""

import pytest
import torch

from model.errors import ModelError
from model.separation.arithmetic import resolved_device, resolved_precision

CUDA, MPS, CPU = torch.device("cuda"), torch.device("mps"), torch.device("cpu")


@pytest.fixture
def machine(monkeypatch):
    def has(cuda=False, mps=False, capability=(9, 0), emulates=True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        # As torch has it: with emulation every GPU can.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: capability >= (8, 0) or (emulates and including_emulation),
        )

    return has


@pytest.mark.parametrize(
    ("here", "device"), [({"cuda": True, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")]
)
def test_auto_is_cuda_then_apples_gpu_then_the_cpu(machine, here, device):
    machine(**here)
    assert resolved_device("auto") == device
    assert resolved_device("cpu") == "cpu"


@pytest.mark.parametrize(("device", "sentence"), [("cuda", "no CUDA device here"), ("mps", "no Apple GPU here")])
def test_a_gpu_that_is_not_here_is_a_sentence(machine, device, sentence):
    machine()
    with pytest.raises(ModelError, match=sentence):
        resolved_device(device)


@pytest.mark.parametrize(
    ("capability", "precision"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float32"), ((6, 1), "float32")]
)
def test_bfloat16_is_chosen_where_the_gpu_multiplies_it_and_not_where_it_is_emulated(machine, capability, precision):
    machine(cuda=True, capability=capability)
    assert resolved_precision("auto", CUDA) == precision
    assert resolved_precision("float32", CUDA) == "float32"


def test_bfloat16_on_a_gpu_that_has_none_is_refused(machine):
    machine(cuda=True, mps=True, capability=(7, 5))
    for device in (CUDA, MPS):
        with pytest.raises(ModelError, match="does not multiply in bfloat16; use --precision float32"):
            resolved_precision("bfloat16", device)
    assert resolved_precision("bfloat16", CPU) == "bfloat16"  # slow and right


def test_apples_gpu_computes_in_float32(machine):
    machine(mps=True)
    assert resolved_precision("auto", MPS) == "float32"
