#!/usr/bin/env bash
# The baseline that run.sh leaves out because it is class-k1 by another hand: Proxy Anchor of pytorch-metric-learning, and
# class-k1 beside it. From the root: bash results/cifar100_coarse/proxy_anchor.sh
set -euo pipefail
out=runs/cifar100_coarse_proxy_anchor
polyanchor compare configs/cifar100_coarse_heads.toml --method proxy-anchor --method class-k1:class,loss.proxies_per_class=1 \
  --seeds 5 --trials 0 --against class-k1 --out $out > /dev/null
python results/keep.py $out/table.json results/cifar100_coarse/proxy_anchor.json
