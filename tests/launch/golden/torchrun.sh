#!/usr/bin/env bash
# gpt-small: fsdp 8 × tp 2, bf16
# Run it on each of 2 machines, HEAD being the name of the first: HEAD=node-0 bash torchrun.sh
set -euo pipefail
cd "$(dirname "$0")"
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun \
  --nnodes=2 \
  --nproc-per-node=8 \
  --max-restarts=3 \
  --rdzv-backend=c10d \
  --rdzv-endpoint="${HEAD:?"the name of the first machine"}:29400" \
  --rdzv-id=gpt-small \
  --no-python \
  planish train gpt.py:make --data 'my data.py:rows' --plan plan.toml
