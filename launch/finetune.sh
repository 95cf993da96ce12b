#!/usr/bin/env bash
# Tune and evaluate: launch/finetune.sh --mode prompt --task ravdess --pretrained runs/grid [key=value ...]
# Under Slurm it starts one process a task, elsewhere DeepSpeed one a GPU.
set -euo pipefail
here=$(dirname "$0")
if [[ -n "${SLURM_JOB_ID:-}" ]]; then
    exec srun --kill-on-bad-exit=1 python "$here/finetune.py" "$@"
fi
exec deepspeed "$here/finetune.py" "$@"
