"""museval, importable on a machine without ffmpeg.

`import museval` imports musdb, which imports stempeg, which raises unless ffmpeg and ffprobe are on the PATH;
museval's scores need none of them. Where they are missing an empty musdb replaces it during the import.
"""

import shutil
import sys
import types
from functools import cache

import numpy as np


@cache
def museval() -> types.ModuleType:
    """The museval package: `evaluate`, `metrics`, `EvalStore`, `TrackStore`. Its musdb helpers need ffmpeg."""
    missing = "musdb" not in sys.modules and not (shutil.which("ffmpeg") and shutil.which("ffprobe"))
    if missing:
        sys.modules["musdb"] = types.ModuleType("musdb")
    try:
        import museval as package
    finally:
        if missing:
            del sys.modules["musdb"]
    return package


def museval_bss_eval(references: np.ndarray, estimates: np.ndarray, window: int) -> np.ndarray:
    """SDR, ISR, SIR and SAR in dB, computed by museval.

    Args:
        references: (stems, channels, samples).
        estimates: The same shape.
        window: Length of a window, and of the hop between windows, in samples.

    Returns:
        float64 (4, stems, windows), scores in the order of the first line.

    Raises:
        ValueError: museval has no answer, for its reason: a silent stem, a singular matrix.
    """
    try:
        return np.stack(
            museval().metrics.bss_eval(
                references.transpose(0, 2, 1).astype(np.float64),
                estimates.transpose(0, 2, 1).astype(np.float64),
                window=window,
                hop=window,
                compute_permutation=False,
                filters_len=512,
                framewise_filters=False,
                bsseval_sources_version=False,
            )[:4]
        )
    except AttributeError as error:  # its fallback for singular matrices needs an error class of numpy 1
        raise ValueError("museval cannot score references that are linearly dependent") from error
