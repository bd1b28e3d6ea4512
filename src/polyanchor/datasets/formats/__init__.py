"""Readers of the layouts that people have: folders, CSV, Parquet, vectors."""
