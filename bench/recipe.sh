#!/usr/bin/env bash
# How the shipped weights come about, from ../shared/data: audio into stores, a bench, the presets as their TOMLs say,
# validation, weights and log out. Nothing is set by hand. Killed, the same command goes on from the last checkpoints.
#
#     bash bench/recipe.sh --work WORK [--device cuda] [--minutes 25] [--preset stereo] [--from ID] [--data DIR]
#
# --minutes N trains for N minutes: as many steps as the bench says fit, so that the schedule comes to its end, and
# validated a dozen times at most, which a GPU's many steps would be every few seconds.
# --preset is one preset instead of all; --from begins with a model's weights (the presets' section "continue").
# What begins with random weights, stereo and a four-stem without it, is trained with more channels than it ships with
# and made narrower then. What `stereo` ships with was trained on from there (--preset stereo --from
# WORK/stereo.safetensors, in a WORK of its own), and `four-stem` begins with stereo's weights.
set -euo pipefail
cd "$(dirname "$0")/.."
work= device=auto minutes= presets="stereo four-stem jansson crnn cnn" start= shared=../shared/data
while [ $# -gt 0 ]; do
  case $1 in
    --work) work=$2 ;; --device) device=$2 ;; --minutes) minutes=$2 ;; --preset) presets=$2 ;;
    --from) start=$2 ;; --data) shared=$2 ;;
    *) echo "$1 is not an option; see the head of $0" >&2; exit 2 ;;
  esac
  [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
  shift 2
done
[ -n "$work" ] || { echo "--work FOLDER is missing; see the head of $0" >&2; exit 2; }
unbraid=${UNBRAID:-.venv/bin/unbraid} python=${PYTHON:-.venv/bin/python}
mkdir -p "$work"

into() { # STORE DATASET [OPTION …]: what the data folder does not have is passed over
  local store=$1 data=$2; shift 2
  if [ -e "$data" ]; then $unbraid ingest "$data" --store "$store" --waveforms-only "$@"; else echo "no $data, passed over"; fi
}

# A store on /dev/shm would be no faster: the system keeps what was read of it in memory.
store=$work/train.zarr
if [ ! -e "$work/ingested" ]; then
  [ ! -d "$shared/everythingisfree" ] || $python bench/heldout.py "$work/data" "$shared"
  into "$store" "$shared/musdb18_7s/train" --name musdb18_7s
  into "$store" "$shared/real_stems"
  for voices in songs phrases nus ravdess_song; do into "$store" "$shared/voices/$voices" --stem vocals; done
  into "$store" "$shared/instrumentals" --stem accompaniment
  into "$store" "$work/data/learn/everythingisfree"
  for stem in drums bass; do into "$store" "$work/data/learn/$stem" --stem $stem; done
  into "$store" "$work/data/learn/made"
  into "$store" "$shared/mir1k" --test-artist annar --test-artist Kenshin
  scores=() # songs as MIDI files, where Debian's packages of them are installed (bench/midi.py)
  for source in /usr/share/games/openttd/baseset/openmsx /usr/share/games/doom/*.wad /usr/share/planetblupi/music; do
    [ ! -e "$source" ] || scores+=("$source")
  done
  if command -v fluidsynth > /dev/null && [ ${#scores[@]} -gt 0 ]; then
    fonts=()
    for font in /usr/share/sounds/sf2/FluidR3_GM.sf2 /usr/share/sounds/sf3/MuseScore_General_Full.sf3; do
      [ ! -e "$font" ] || fonts+=("$font")
    done
    $python bench/midi.py "$work/data/midi" "${scores[@]}" ${fonts:+--font "${fonts[@]}"}
    into "$store" "$work/data/midi" --name midi
  else
    echo "no fluidsynth or no MIDI songs, passed over"
  fi
  touch "$work/ingested"
fi

for preset in $presets; do
  run=$work/runs/$preset
  options=(--preset "$preset" --device "$device" --run "$run" --resume)
  from=$start
  [ "$preset" != four-stem ] || [ -n "$from" ] || [ ! -e "$work/stereo.safetensors" ] || from=$work/stereo.safetensors
  [ -z "$from" ] || options+=(--from "$from")
  if [ -n "$minutes" ]; then
    # One line of the bench says how many steps fit; kept, so that a run that goes on has the same schedule.
    [ -e "$work/$preset.steps" ] || $python bench/training.py "$store" --preset "$preset" --device "$device" \
      ${BENCH_STEPS:+--steps "$BENCH_STEPS"} --minutes "$minutes" --write "$work/$preset.steps" | tee "$work/$preset.bench"
    steps=$(cat "$work/$preset.steps")
    every=$($python -c 'import sys; from model.preset import load_preset; name, start, steps = sys.argv[1:]
print(max(load_preset(name, continued=bool(start)).training.validate_every, int(steps) // 12))' "$preset" "$from" "$steps")
    options+=(--steps "$steps" --set "validate_every=$every")
  fi
  made=$run/best.safetensors
  case $preset:$from in stereo: | four-stem:)
    options+=(--set 'network_options.widths=[32, 64, 128, 192, 256, 256]')
    made=$work/narrow/$preset/narrow.safetensors ;;
  esac
  $unbraid train "$store" "${options[@]}" 2>&1 | tee -a "$work/$preset.log"
  if [ "$made" != "$run/best.safetensors" ]; then
    $python bench/narrow.py "$run/best.safetensors" "$store" "$work/narrow/$preset" --device "$device" 2>&1 |
      tee -a "$work/$preset.log"
  fi
  cp "$made" "$work/$preset.safetensors"
  cp "$run/log.jsonl" "$work/$preset.jsonl"
done
echo "weights and logs are in $work"
