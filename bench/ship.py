"""Puts trained weights into model/weights as the champion of a preset, with their card.

    python bench/ship.py WEIGHTS.safetensors PRESET NOTES.md

NOTES.md is what only a person can say: scores with how they were taken, and what the model is bad at. What was
trained, on what, for how long is read from the weights; the data's licences are below. Older weights of the preset
are taken out, with the cards of presets that borrow them. A preset that borrows (hq) gets a card alone, beside the
weights it borrows: WEIGHTS is the lender's file then.
"""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from model.checkpoint import Weights, model_id
from model.preset import borrowing_presets
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


FOLDER = ROOT / "model" / "weights"


def main(source: Path, preset: str, notes: Path) -> None:
    weights = Weights.from_bytes(source.read_bytes(), str(source))
    data = weights.to_bytes(torch.float16)
    lender = borrowing_presets().get(preset)
    if weights.preset.name != (lender or preset):
        sys.exit(f"{source} holds weights of {weights.preset.name}, not of {lender or preset}")
    if lender:
        name = f"{preset}-{model_id(lender, data).rpartition('-')[2]}"
        if not (FOLDER / f"{model_id(lender, data)}.safetensors").exists():
            sys.exit(f"ship {lender} first: {preset} is a view on its weights")
        take_out(preset)
    else:
        borrowers = [name for name, lending in borrowing_presets().items() if lending == preset]
        for old in (preset, *borrowers):
            take_out(old)
        champions = FOLDER / "champions.json"
        pointers = json.loads(champions.read_text()) if champions.exists() else {}
        champions.write_text(json.dumps({name: ids for name, ids in pointers.items() if name != preset}))
        name = Registry(FOLDER, FOLDER).add(preset, data, "", champion=True)
    (FOLDER / f"{name}.md").write_text(f"{model_card(data, name)}\n{notes.read_text().strip()}\n{DATA}")
    print(f"{name}, {'no file of its own' if lender else f'{len(data) / 1e6:.1f} MB'}")


def take_out(preset: str) -> None:
    """Remove a preset's weights and cards from the package's folder."""
    for old in FOLDER.glob(f"{preset}-????????.*"):
        old.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
