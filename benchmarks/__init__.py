"""One script per question; ``python -m benchmarks`` runs the short set. Rows and timing: ``benchmarks/common.py``."""
