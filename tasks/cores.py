"""What this machine has for worker processes, and how it is shared out among them."""

import os
import platform
from dataclasses import dataclass

# Side by side in one process that hands its segments to a GPU: with more, threads wait for Python's lock.
_FILES_PER_PROCESS, _MOST_FILES = 4, 8
# Of such a process: Python, torch, its CUDA context and its files' samples; and on the GPU a context and two batches.
_PROCESS_BYTES, _GPU_BYTES = 3 << 30, 3 << 30
# Where the system shows that there is a GPU's driver: NVIDIA's, AMD's, that of Windows' Linux.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


@dataclass(frozen=True)
class Sharing:
    """How a machine is shared out: `processes`, tracks at a time in each (`files`), and torch `threads` of each."""

    processes: int
    files: int
    threads: int


def available_cores() -> int:
    """The number of cores that this process may run on: those of its affinity mask where the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared_out(cores: int, *, workers: int | None = None, tracks: int | None = None) -> Sharing:
    """Cores among processes that compute on them: a process per core, one track each.

    Args:
        cores: The cores there are.
        workers: How many processes are asked for; None for one per core.
        tracks: How many tracks there are to do, which need no more processes; None where nobody knows.
    """
    processes = max(1, min(workers or cores, tracks or cores))
    return Sharing(processes, 1, max(1, cores // processes))


def shared_gpu(
    cores: int, memory: int, gpu_memory: int, *, workers: int | None = None, tracks: int | None = None
) -> Sharing:
    """Cores among processes that compute on one GPU: as few as memory allows and Python's lock lets decode and encode.

    Every process has a context of its own on the GPU, a gigabyte or so in all; the tracks of one process share it,
    and their segments share batches.

    Args:
        cores: The cores there are, for decoding, measuring and encoding.
        memory: The machine's memory in bytes.
        gpu_memory: The GPU's memory in bytes.
        workers: How many processes are asked for; None to choose.
        tracks: How many tracks there are to do; None where nobody knows.
    """
    fitting = max(1, min(cores // _FILES_PER_PROCESS, memory // _PROCESS_BYTES, gpu_memory // _GPU_BYTES))
    processes = workers or fitting
    # One more than cores, since some wait for the GPU.
    files = min(_MOST_FILES, -(-cores // processes) + 1)
    if tracks is not None:
        processes = max(1, min(processes, -(-tracks // files) if workers is None else tracks))
        files = max(1, min(files, -(-tracks // processes)))
    return Sharing(processes, files, 1)


def local_gpu(device: str) -> str | None:
    """The GPU that work for this machine runs on, asked of torch only where a driver or the request says there is one.

    Args:
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        "cuda", "mps", or None for the CPU.

    Raises:
        ModelError: The GPU that was asked for is not here.
    """
    if device == "cpu" or (device == "auto" and not _driver()):
        return None
    from model.separation.arithmetic import resolved_device  # imports torch, which takes seconds

    resolved = resolved_device(device)
    return None if resolved == "cpu" else resolved


def gpu_bytes(device: str) -> int:
    """The memory of a GPU that is here, in bytes.

    Args:
        device: "cuda", or "mps", whose memory is the machine's.
    """
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory
    import psutil

    return psutil.virtual_memory().total


def _driver() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    return any(os.path.exists(driver) for driver in _DRIVERS)
