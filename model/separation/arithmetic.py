"""What a network runs on: the device, the precision of its arithmetic there, and the threads that it takes."""

import threading
from collections.abc import Callable

import torch

from model.errors import ModelError
from model.networks import int8

TRAINING_PRECISIONS = ("auto", "float32", "bfloat16")
PRECISIONS = (*TRAINING_PRECISIONS, "int8")
_BFLOAT16_CAPABILITY = (8, 0)  # the first of NVIDIA's generations (Ampere) whose matrix units take bfloat16
_MISSING = {
    "cuda": "there is no CUDA device here; use --device cpu, or a worker that has one",
    "mps": "there is no Apple GPU here that torch can use (MPS); use --device cpu",
}


def resolved_device(device: str) -> str:
    """The device that a choice means here.

    Args:
        device: "cpu", "cuda", "mps" (Apple's GPU), or "auto" for the first that is here of cuda, mps and cpu.

    Raises:
        ModelError: "cuda" or "mps" was chosen, and there is none.
    """
    here: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if device == "auto":
        return next(name for name, available in here.items() if available())
    if not here[device]():
        raise ModelError(_MISSING[device])
    return device


def separating_precision(precision: str, device: torch.device, network: torch.nn.Module | type[torch.nn.Module]) -> str:
    """The precision that a network separates with.

    Args:
        precision: One of PRECISIONS.
        device: Where it runs.
        network: The network or its class; those with a method `quantise` can compute in 8-bit integers.

    Returns:
        "int8", "bfloat16" or "float32". For "auto" the fastest: 8-bit integers where the network has them and the
        processor multiplies them (its estimates differ from float32's by −40 dB), else that of `resolved_precision`.

    Raises:
        ModelError: There is no such precision, or not here.
    """
    if precision not in PRECISIONS:
        raise ModelError(f"{precision} is not a precision; choose one of {', '.join(PRECISIONS)}")
    able = device.type == "cpu" and int8.supported() and hasattr(network, "quantise")
    if precision == "int8" and not able:
        raise ModelError(
            "int8 needs a processor with VNNI, the device cpu and a network that has it (stereo, hq, four-stem); "
            "use --precision auto"
        )
    return "int8" if able and precision in ("auto", "int8") else resolved_precision(precision, device)


def resolved_precision(precision: str, device: torch.device) -> str:
    """ "bfloat16" or "float32"; for "auto" bfloat16 where the device multiplies it faster.

    Args:
        precision: One of TRAINING_PRECISIONS.
        device: Where the network runs.

    Raises:
        ModelError: There is no such precision, or the GPU does not compute in it.
    """
    if precision not in TRAINING_PRECISIONS:
        raise ModelError(f"{precision} is not a precision; choose one of {', '.join(TRAINING_PRECISIONS)}")
    if precision == "auto":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    # A processor without it is slow and right; a GPU's driver would emulate it, which is neither.
    if precision == "bfloat16" and device.type != "cpu" and not multiplies_bfloat16(device):
        raise ModelError(f"the {device.type} device here does not multiply in bfloat16; use --precision float32")
    return precision


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32.

    Args:
        device: A device that is here. On Apple's GPU (mps) the answer is no: our networks are not tried there in
            anything but float32.
    """
    if device.type == "cuda":
        # `is_bf16_supported()` alone says yes to GPUs that only emulate it.
        capable = torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
        return capable and torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Without AMX's tiles bfloat16 is slower, even with AVX-512's instructions (docs/experiments.md, "Sound II").
        return torch.cpu._is_amx_tile_supported()
    return False


def compute_alone(threads: int) -> None:
    """Let torch use one thread in this thread; threads that start later get `threads` as before.

    `torch.set_num_threads` sets the calling thread's number and that of later threads. A thread adopts the process's
    number when it first reads its number, so it must read before it is given another.

    Args:
        threads: The process's number of torch threads.
    """
    torch.get_num_threads()
    torch.set_num_threads(1)
    others = threading.Thread(target=torch.set_num_threads, args=(threads,))
    others.start()
    others.join()
