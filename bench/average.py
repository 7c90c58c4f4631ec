"""Averages the weights of several runs of one network, the later ones begun from the first.

    python bench/average.py OUT.safetensors A.safetensors B.safetensors …

After Wortsman et al., "Model soups", ICML 2022. The record is the last run's, with the names of all.
"""

import dataclasses
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from model.checkpoint import Weights


def main(out: Path, sources: list[Path]) -> None:
    """Write the mean of weights.

    Args:
        out: The file to write.
        sources: Weights of one network, the last run's last.
    """
    read = [Weights.from_bytes(source.read_bytes(), str(source)) for source in sources]
    last = read[-1]
    mean = {name: torch.stack([w.tensors[name].float() for w in read]).mean(0) for name in last.tensors}
    # What was validated was the last run, not the mean.
    record = {name: value for name, value in last.record.items() if name != "validation_csdr"}
    record["averaged"] = [source.stem for source in sources]
    out.write_bytes(dataclasses.replace(last, tensors=mean, record=record).to_bytes())


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
