"""``python -m polyanchor``."""

from polyanchor.cli import main

if __name__ == "__main__":  # processes of a run on several devices import this module too
    main()
