"""Comparisons: the same budget, batches and seeds for every loss, and what the numbers then say."""
