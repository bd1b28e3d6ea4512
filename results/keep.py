"""Copies a comparison's table.json for keeping: all means, the tests of the measures that pages show, seven digits.

Run: python results/keep.py FROM TO
"""

import json
import sys
from pathlib import Path

SHOWN = {"recall@1", "ndcg@8", "map@r"}


def rounded(value: object) -> object:
    """Seven significant digits."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


if __name__ == "__main__":
    said = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for line in said.get("lines", []):
        line["tests"] = {name: test for name, test in line["tests"].items() if name.removeprefix("sub/") in SHOWN}
    Path(sys.argv[2]).write_text(json.dumps(rounded(said), ensure_ascii=False) + "\n", encoding="utf-8")
