"""Puts trained weights into model/weights as the champion of a preset, with their card.

    python bench/ship.py WEIGHTS.safetensors PRESET NOTES.md

NOTES.md is what only a person can say: how the weights came about, and what the model is bad at. What was trained, on
what, for how long, and how validation rose is read from the weights; all judging songs are scored; the data's
licences are below. Older weights of the preset are removed, with the cards of presets that borrow them. A preset that
borrows (hq) gets only a card, beside the weights it borrows; WEIGHTS is then the lender's file.
"""

import json
import statistics
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiment import SETS, scores

from model.checkpoint import Weights, model_id
from model.preset import borrowing_presets, load_preset
from storage.registry import Registry
from tasks.training.card import model_card

DATA = """
## What it learned from

Random mixtures of stems of different songs, changed in speed (and with it pitch and formants), equaliser,
reverberation, doubling, compression, distortion, width, balance and loudness, as far as its preset says so. The table
above says how many hours of each; their licences, as their sources state them:

- `musdb18_7s`: 54 songs of MUSDB18's seven-second set, train half: academic use, CC BY-NC-SA by song.
- `real_stems`: 12 songs from multitracks on public pages: not stated for the audio, or educational use (`mt5_*`).
- `songs`, `nus`: solo singing cut from songs, phrases of two pop songs by 21 singers: research use, or not stated.
- `ravdess_song`: RAVDESS, the sung part: CC BY-NC-SA 4.0.
- `phrases`: solo phrases from singing-synthesis papers' pages (GTSinger, M4Singer, Multi-Singer: CC BY-NC-SA;
  others not stated), non-commercial and research use.
- `mir1k`: MIR-1K (Mandarin karaoke, amateur singers, 8 kHz band), research use; annar and Kenshin left out.
- `instrumentals`: backings of games, free songs and real bands; CC0, CC-BY, CC-BY-SA, GPL, or not stated.
- `midi`: 134 songs played by the sound fonts FluidR3 GM and MuseScore General (MIT): Freedoom's (BSD), OpenTTD's
  OpenMSX and Planet Blupi's (GPL).
- `hunt_inst`, `hunt_voice`: nine rock and metal instrumentals (muldjord: CC BY-SA 3.0; sectoid: MIT; João Erbetta: not
  stated), five files of solo singing (vocadito: CC BY 4.0; choir parts: not stated).
- `everythingisfree`: five songs by ichbinsoftware, CC0; `drums`, `bass`: loops and hits, CC0.
- `banks`, `game` (of the first weights): voice banks scottpoid-ja, hitsuboku, milk-en, ALYS; voices of
  games; with credit, GPL-3, or not stated.
- `made`: songs that `tasks/demo/synthesiser.py` makes.

No audio is part of this package. Because of the sources above, treat the weights as for non-commercial and
research use.
"""


FOLDER = ROOT / "model" / "weights"


def main(source: Path, preset: str, notes: Path) -> None:
    """Register the weights as the preset's champion and write the model's card.

    Args:
        source: The weights; the lender's for a preset that borrows.
        preset: The preset.
        notes: Markdown that the card ends with, before the data's licences.

    Raises:
        SystemExit: The weights are another preset's, or the lender's are not shipped yet.
    """
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
    views = load_preset(preset).inference.views if lender else None
    card = f"{model_card(data, name)}\n{songs(source, views)}\n{notes.read_text().strip()}\n{DATA}"
    (FOLDER / f"{name}.md").write_text(card)
    print(f"{name}, {'no separate file' if lender else f'{len(data) / 1e6:.1f} MB'}")


def songs(source: Path, views: tuple[float, ...] | None) -> str:
    """Every judging song's cSDR per stem, with median and mean, from `bench/experiment.py`.

    Args:
        source: The weights' file.
        views: Bin spacings that the network sees; the preset's where None.

    Returns:
        A section of Markdown.
    """
    lines = ["## All judging songs", "", "cSDR in dB, every stem of a song scored together.", ""]
    lines += ["| stem | songs | median | mean | by song |", "|---|---|---|---|---|"]
    for kind, by_song in scores(str(source), views, "float32").items():
        for stem in sorted({stem for stems in by_song.values() for stem in stems}):
            values = {song: stems[stem] for song, stems in by_song.items() if stem in stems}
            listed = ", ".join(f"{song} {value:.1f}" for song, value in values.items())
            median, mean = statistics.median(values.values()), statistics.fmean(values.values())
            lines.append(f"| {stem} | {SETS[kind].name} ({len(values)}) | {median:.2f} | {mean:.2f} | {listed} |")
    return "\n".join([*lines, ""])


def take_out(preset: str) -> None:
    """Remove a preset's weights and cards from the package's folder.

    Args:
        preset: The preset's name.
    """
    for old in FOLDER.glob(f"{preset}-????????.*"):
        old.unlink()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
