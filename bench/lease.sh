#!/usr/bin/env bash
# What a GPU machine that is lent for half an hour needs, in pieces that fit into its calls: wheels, and data to learn
# from. docs/gpu.md has the calls.
#
#     bash bench/lease.sh pack [--data DIR] [FOLDER …]   here: .lease/0, .lease/1 …, wheels and these folders of DIR
#     bash bench/lease.sh restore                        here: the checkout as it was
#     bash bench/lease.sh keep                           there: put the pieces of this call by
#     . bench/lease.sh unpack                            there: join the pieces, install the wheels, set the environment
#
# A call carries 64 MiB with the checkout in it. Two of the shipped weights are most of that, so `pack` takes them out of
# the checkout and `restore` brings them back. Without folders the wheels are those that separation needs too.
_piece_mib=${PIECE_MIB:-42} _call_mib=64
_kept=${LEASE:-/root/lease}
# The image has torch, numpy, scipy, pyarrow, matplotlib, jinja2, psutil, rich and pillow (KINDS.md of the device).
_needed="annotated-types cffi cloudpickle dask distributed donfig google-crc32c locket msgpack mutagen numcodecs partd
  pathlib_abc pycparser pydantic pydantic_core pyloudnorm sortedcontainers soundfile soxr tblib tornado typing-inspection
  typing_extensions universal-pathlib zarr zict"

_wheels() { # PACKAGE …: wheels of the locked versions, for the Python there
  local package version pinned=()
  for package in "$@"; do
    version=$(grep -i "^${package//[-_]/[-_]}==" requirements.lock | cut -d= -f3) || return 1
    pinned+=("$package==$version")
  done
  python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d .lease/whl "${pinned[@]}"
}

_pack() {
  set -euo pipefail
  local data=../shared/data packages=$_needed tree
  if [ "${1:-}" = --data ]; then data=$2; shift 2; fi
  [ $# -gt 0 ] || packages="$_needed duckdb"
  rm -rf .lease; mkdir -p .lease/whl
  # shellcheck disable=SC2086
  [ -n "${NO_WHEELS:-}" ] || _wheels $packages
  for folder in "$@"; do [ -d "$data/$folder" ] || { echo "there is no $data/$folder" >&2; exit 2; }; done
  local folders=()
  [ $# -eq 0 ] || folders=(--directory "$(realpath "$data")" "$@")
  tar --create --dereference --directory .lease whl "${folders[@]}" | split --bytes "${_piece_mib}M" --numeric-suffixes - .lease/piece.
  rm -rf .lease/whl
  local piece number=0
  for piece in .lease/piece.*; do mkdir ".lease/$number"; mv "$piece" ".lease/$number/"; number=$((number + 1)); done
  find model/weights -name '*.safetensors' ! -name 'stereo-*' -delete
  tree=$(git ls-files -z --cached --others --exclude-standard | { xargs -0 du --bytes --total 2>/dev/null || true; } \
    | tail -1 | cut -f1)
  if [ $((tree / 1048576 + _piece_mib)) -ge $_call_mib ]; then
    echo "the checkout has $((tree / 1048576)) MiB, which leaves no room for $_piece_mib; see git status" >&2; exit 1
  fi
  ls -l .lease/*/*
  echo "carry each in a call of its own; afterwards: bash bench/lease.sh restore"
}

_unpack() { # sourced: the environment stays
  export PYTHONPATH=$PWD:/tmp/site PYTHONUNBUFFERED=1 UNBRAID="python3 -m flows.cli" PYTHON=python3 UNBRAID_MODELS=/tmp/models
  [ ! -e "$_kept/unpacked" ] || return 0
  cat "$_kept"/piece.* | tar --extract --directory "$_kept" || return 1
  [ -n "${NO_WHEELS:-}" ] || python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target /tmp/site "$_kept"/whl/*.whl || return 1
  touch "$_kept/unpacked"
}

case ${1:-} in
  pack) shift; (cd "$(dirname "$0")/.." && _pack "$@") ;;
  restore) cd "$(dirname "$0")/.." && rm -rf .lease && git checkout -- model/weights ;;
  keep) mkdir -p "$_kept" && cp .lease/*/piece.* "$_kept" && ls -l "$_kept" ;;
  unpack) _unpack ;;
  *) echo "pack, restore, keep or unpack; see the head of bench/lease.sh" >&2; (exit 2) ;;
esac
