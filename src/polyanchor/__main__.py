"""``python -m polyanchor``."""

from polyanchor.cli import main

main()
