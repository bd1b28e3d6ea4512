"""The benchmark data sets with their official splits."""
