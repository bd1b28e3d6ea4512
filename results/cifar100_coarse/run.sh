#!/usr/bin/env bash
# CIFAR-100 with its 20 coarse labels, each of five fine classes: do local centres find them? Frozen features, nothing
# searched, all 20 classes train, last epoch, five seeds. From the root: bash results/cifar100_coarse/run.sh
set -euo pipefail
methods=()
for anchor in class data mixed; do
  for k in 1 2 5 10 20; do
    methods+=(--method "$anchor-k$k:$anchor,loss.proxies_per_class=$k")
  done
  for weight in 0.2 2; do
    methods+=(--method "$anchor-k10-merging$weight:$anchor,loss.proxies_per_class=10,loss.merging=$weight")
  done
done
for k in 1 5 10; do
  methods+=(--method "softtriple-k$k:softtriple,loss.proxies_per_class=$k")
  methods+=(--method "subcenter-arcface-k$k:subcenter-arcface,loss.proxies_per_class=$k")
done
methods+=(--method normsoftmax --method proxy-nca --method supcon --method multi-similarity)
methods+=(--method arcface --method triplet --method contrastive)
out=runs/cifar100_coarse
polyanchor compare configs/cifar100_coarse_heads.toml "${methods[@]}" --seeds 5 --trials 0 --against class-k1 --out $out > /dev/null
python results/keep.py $out/table.json results/cifar100_coarse/comparison.json
polyanchor analyze measures $out > /dev/null
cp $out/stability/stability.json results/cifar100_coarse/stability.json
python results/cifar100_coarse/centres.py > results/cifar100_coarse/centres.json
