"""Coverage-guided fuzzing of everything that reads what somebody else wrote (`make fuzz`).

    python benchmarks/fuzz.py [PARSER ...] [--seconds 60] [--corpus DIR]

Each parser has a process of its own, which libFuzzer (through atheris) drives for so long; an input that crashes it,
takes longer than ten seconds or needs more than 2 GB ends it, and is kept in DIR. Prints a line for each: inputs,
inputs/s, what its memory grew by from the end of the first second on, and how it ended.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
DONE = re.compile(r"Done (\d+) runs? in (\d+) second")
PULSE = re.compile(r"#(\d+)\s.*rss: (\d+)Mb")


def fuzzed(name: str, seconds: int, corpus: Path) -> bool:
    """Fuzz one parser and print what came of it; whether it stood."""
    seeds = corpus / name
    seeds.mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={seconds}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-max_len=8192",
        "-print_final_stats=1",
    ]
    command = [sys.executable, __file__, "--inside", name, *limits, f"-artifact_prefix={seeds}-", str(seeds)]
    said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 120).stderr
    pulses = [(int(n), int(mb)) for n, mb in PULSE.findall(said)]
    done = DONE.search(said)
    runs = int(done[1]) if done else max((n for n, _ in pulses), default=0)
    sizes = [mb for _, mb in pulses[len(pulses) // 4 :]] or [0]
    ended = "stood" if done else "FAILED: " + next((x for x in said.splitlines() if "ERROR" in x or "Error" in x), "?")
    print(
        f"{name:16} {runs:10,} inputs {runs // max(1, seconds):7,}/s  {sizes[-1] - sizes[0]:+5} MB  {ended}", flush=True
    )
    if not done:
        print(said[said.find("=== Uncaught Python exception") :].partition("==ERROR")[0][:3000])
    return done is not None


def inside(name: str, words: list[str]) -> None:
    """The process of one parser; never returns."""
    import atheris

    with atheris.instrument_imports(include=["pacemark"]):
        from support.parsers import PARSERS

        parser = PARSERS[name]
        parser.read(parser.seeds[0])  # what is imported late counts too
    for n, seed in enumerate(parser.seeds):
        (Path(words[-1]) / f"seed{n}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *words], parser.read)
    atheris.Fuzz()


def main() -> None:
    if sys.argv[1:2] == ["--inside"]:
        return inside(sys.argv[2], sys.argv[3:])
    from support.parsers import PARSERS

    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("parsers", nargs="*", default=list(PARSERS), metavar="PARSER")
    words.add_argument("--seconds", type=int, default=60)
    words.add_argument("--corpus", type=Path)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stood = [fuzzed(name, given.seconds, given.corpus or Path(folder)) for name in given.parsers]
    sys.exit(0 if all(stood) else 1)


if __name__ == "__main__":
    main()
