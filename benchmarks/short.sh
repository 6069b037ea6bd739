#!/usr/bin/env bash
# Every benchmark at a small size, one after another: some minutes on two cores. `make bench` runs it.
# It shows that they run and which way a ratio points; figures to quote come from the full sizes.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export DEEPLABV3_CACHE="$folder/cache"
data="$folder/streets"
run="$folder/run"
model="$run/checkpoints/last.safetensors"

failed=()
bench() {  # the others go on where one fails
  printf '\n== %s\n' "$*"
  "$PYTHON" "benchmarks/$1" "${@:2}" || failed+=("$1")
}

prepare() {  # what it says is only of interest where it fails
  "$PYTHON" -m deeplabv3 "$@" > "$folder/log" 2>&1 || { cat "$folder/log"; exit 1; }
}

prepare streets "$data" --num-train 48 --num-val 8 --height 128 --width 256
prepare train "$data" "$run" --config quick --phases '[{epochs: 2, learning_rate: 0.05}]' --crop-size '[128, 128]' --report false
prepare export "$model" "$folder/model.onnx"
prepare export "$model" "$folder/model.pt2"
prepare export "$model" "$folder/int8.onnx" --int8 true --calibration "$data" --num-calibration 8

# Data: against the reference transforms of torchvision, plain PNGs, and the figure that was asked for.
bench data.py 16 2 1
bench overlap.py 1 240
bench checking.py 16
bench streets.py 20

# Scores: against the official script; memory: against all classes at once, and torch's cross-entropy.
bench scores.py 5
bench memory.py 512 1024
bench losses.py 1 256 512

# Training: against torchvision's reference, one process instead of two, and another variant of the recipe.
bench train_cpu.py --backbones resnet50 --precisions float32 --crop 129 --rounds 1 --steps 2
SECONDS_A_ROUND=1 bench scaling.py 2 65 resnet18
bench recipes.py "$data" --recipe quick --minutes 0.3 '{"crop_size": [128, 128]}' '{"crop_size": [128, 128], "width": 16}'

# Inference: against torchvision and segmentation_models.pytorch, and exported files against their checkpoint.
bench inference.py --backbone resnet50 --size 256 512 --output-strides 16 --precisions float32 --frames 1 --matrix 512
bench exported.py "$data" "$model" "$folder/model.onnx" "$folder/model.pt2" "$folder/int8.onnx"

if "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  bench train_gpu.py --backbone resnet50 --crop 257 --compile no --steps 5
else
  printf '\n== train_gpu.py\nskipped: there is no accelerator\n'
fi

if ((${#failed[@]})); then
  printf '\nfailed: %s\n' "${failed[*]}"
  exit 1
fi
