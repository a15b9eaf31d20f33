"""The fault matrix: every fault of the embedded endpoint x streamed and whole x plain and TLS x closed and open loop.

    python benchmarks/fault_matrix.py [FAULT ...]

Prints for each cell the kinds of failure that were reported, how many requests ended well, how many that were sent are
not on record, and how long the run took; docs/reliability.md has the table.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.matrix import cells, met


def main() -> None:
    lost = slowest = 0.0
    for cell in cells():
        if sys.argv[1:] and cell.fault not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = met(cell, Path(folder))
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.most_common()) or "-"
        print(f"{cell!s:44} {found.completed:4} ok  {found.missing} lost  {found.seconds:5.1f} s  {kinds}", flush=True)
        lost, slowest = lost + found.missing, max(slowest, found.seconds)
    print(f"lost: {lost:.0f}; slowest: {slowest:.1f} s")


if __name__ == "__main__":
    main()
