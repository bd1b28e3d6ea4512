"""Losses as modules: each owns its proxies and nothing else."""
