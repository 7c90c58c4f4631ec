"""Puts trained weights into model/weights as the champion of a preset, with their card.

    python bench/ship.py WEIGHTS.safetensors PRESET NOTES.md

NOTES.md is what only a person can say: scores with how they were taken, and what the model is bad at. What was
trained, on what, for how long is read from the weights; the data's licences are below. Older weights of the preset
are taken out.
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model.checkpoint import Weights
from model.preset import load_preset
from storage.registry import Registry
from tasks.training.card import model_card

DATA = """
## What it learned from

Random mixtures of stems of different songs, changed in speed (and with it pitch and formants), equaliser,
reverberation, doubling, compression, distortion, width, balance and loudness, as far as its preset says so.

- `mir1k`: MIR-1K (Mandarin karaoke, amateur singers, 8 kHz band), research use; annar and Kenshin left out.
- `phrases`: solo phrases from singing-synthesis papers' pages (GTSinger, M4Singer, Multi-Singer: CC BY-NC-SA;
  others not stated), non-commercial and research use.
- `banks`: sung syllables of voice banks scottpoid-ja, hitsuboku (use with credit), milk-en (redistribution with
  credit), ALYS (GPL-3).
- `game`, `instrumentals`: voices and backings of games and free songs; CC0, CC-BY, CC-BY-SA, GPL, or not stated.
- `everythingisfree`: five songs by ichbinsoftware, CC0; `drums`, `bass`: loops and hits, CC0.
- `made`: songs that `tasks/demo/synthesiser.py` makes.

No audio is part of this package. Because of the sources above, treat the weights as for non-commercial and
research use.
"""


def main(source: Path, preset: str, notes: Path) -> None:
    weights = Weights.from_bytes(source.read_bytes(), str(source))
    if weights.preset.name != preset:  # the same network under another preset, as hq is stereo's
        weights = Weights(load_preset(preset), weights.tensors, weights.record)
    data = weights.to_bytes(torch.float16)
    folder = ROOT / "model" / "weights"
    for old in folder.glob(f"{preset}-????????.*"):
        old.unlink()
    champions = folder / "champions.json"
    pointers = json.loads(champions.read_text()) if champions.exists() else {}
    champions.write_text(json.dumps({name: ids for name, ids in pointers.items() if name != preset}))
    model_id = Registry(folder, folder).add(preset, data, "", champion=True)
    (folder / f"{model_id}.md").write_text(f"{model_card(data)}\n{notes.read_text().strip()}\n{DATA}")
    print(f"{model_id}, {len(data) / 1e6:.1f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
