#!/usr/bin/env bash
# How the shipped weights came about, from ../shared/data. About six hours on two cores; killed, run it again.
#     bash bench/recipe.sh WORK
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:?give a working folder}
unbraid=.venv/bin/unbraid
shared=../shared/data
.venv/bin/python bench/heldout.py "$work/data"

two=$work/two.zarr   # vocals and accompaniment
$unbraid ingest $shared/mir1k --store "$two" --waveforms-only --test-artist annar --test-artist Kenshin
for voices in phrases banks game; do
  $unbraid ingest $shared/voices/$voices --store "$two" --waveforms-only --stem vocals
done
$unbraid ingest $shared/instrumentals --store "$two" --waveforms-only --stem accompaniment
$unbraid ingest "$work/data/learn/everythingisfree" --store "$two" --waveforms-only

four=$work/four.zarr   # vocals, drums, bass, other
for stem in drums bass; do
  $unbraid ingest "$work/data/learn/$stem" --store "$four" --waveforms-only --stem $stem
done
$unbraid ingest "$work/data/learn/everythingisfree" --store "$four" --waveforms-only
$unbraid ingest "$work/data/learn/made" --store "$four" --waveforms-only
for voices in phrases game; do
  $unbraid ingest $shared/voices/$voices --store "$four" --waveforms-only --stem vocals
done
$unbraid ingest $shared/mir1k/voice --store "$four" --waveforms-only --stem vocals

$unbraid train "$two" --preset stereo --steps 6400 --resume
$unbraid train "$four" --preset four-stem --from stereo --steps 900 --resume
$unbraid train "$two" --preset jansson --steps 3000 --resume
$unbraid train "$four" --preset crnn --steps 900 --resume
$unbraid train "$two" --preset cnn --steps 1500 --resume
