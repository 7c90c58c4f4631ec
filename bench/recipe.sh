#!/usr/bin/env bash
# How the shipped weights came about, from ../shared/data. About eight hours on two cores; killed, run it again.
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

# stereo in four runs, the last two averaged (docs/experiments.md has what came of each)
runs=$work/runs
$unbraid train "$two" --resume --run "$runs/s1" --steps 3800 --set network_options.mid_side=false \
  --set 'mixing.vocal_db=[-9,4]' --set mixing.second_backing=0.15 --set mixing.distort=0 --set mixing.mono=0
$unbraid train "$two" --resume --run "$runs/s2" --from "$runs/s1/best.safetensors" --steps 2600 --set learning_rate=8e-4 \
  --set warmup=100
heard=(--set loss=mask_squared --set mixing.speed=0.35 --set mixing.equalise=0.75 --set mixing.reverberate=0.7
  --set mixing.double=0.35 --set mixing.compress=0.6 --set mixing.second_backing=0.25 --set mixing.without_vocals=0.03
  --set mixing.distort=0.1 --set mixing.distort_voice=0.35)
$unbraid train "$two" --resume --run "$runs/s3" --from "$runs/s2/best.safetensors" --steps 480 --set learning_rate=5e-4 \
  --set warmup=30 --set ema=0.99 "${heard[@]}" --set 'mixing.vocal_db=[-8,5]'
$unbraid train "$two" --resume --run "$runs/s5" --from "$runs/s3/best.safetensors" --steps 1600 --seed 5 \
  --set learning_rate=6e-4 --set warmup=40 --set ema=0.997 "${heard[@]}" --set 'mixing.vocal_db=[-9,5]'
.venv/bin/python bench/average.py "$work/stereo.safetensors" "$runs/s3/best.safetensors" "$runs/s5/best.safetensors"

$unbraid train "$four" --preset four-stem --from "$runs/s3/best.safetensors" --steps 900 --resume
$unbraid train "$two" --preset jansson --steps 3000 --resume
$unbraid train "$four" --preset crnn --steps 900 --resume
$unbraid train "$two" --preset cnn --steps 1500 --resume
