"""Looks into trained models: the gradients that a loss sends out, and what the proxies stand for."""
