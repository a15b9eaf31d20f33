"""Coverage-guided fuzzing of everything that reads what somebody else wrote (`make fuzz`).

    python benchmarks/fuzz.py [PARSER ...] [--seconds 60] [--inputs N] [--corpus DIR]

Each parser has a process of its own, one after the other, which libFuzzer (through atheris) drives for so long, or
until it has had so many inputs; an input that crashes it, takes longer than ten seconds or needs more than 4 GB ends
it, and is kept in DIR. Files are written to memory where the system has such a folder. Prints a line for each: inputs,
inputs/s, the most memory it had and what that grew by after the first quarter of its inputs (the fuzzer keeps tables of
its own there, and atheris 3.0 each array that comes of comparing two: of stored runs some ten an input), what memory
grew by as the kept inputs were read over and over without it, and how it ended.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
DONE = re.compile(r"Done (\d+) runs? in (\d+) second")
MEMORY = Path("/dev/shm")
AGAIN = 10_000
"""So many inputs, about, are read again without the fuzzer."""
PULSE = re.compile(r"#(\d+)\s.*rss: (\d+)Mb")


def fuzzed(name: str, seconds: int, inputs: int, corpus: Path) -> bool:
    """Fuzz one parser and print what came of it; whether it stood."""
    seeds = corpus / name
    seeds.mkdir(parents=True, exist_ok=True)
    limits = [
        f"-max_total_time={seconds}",
        f"-runs={inputs or -1}",
        "-timeout=10",
        "-rss_limit_mb=4096",
        "-max_len=8192",
        "-print_final_stats=1",
    ]
    command = [sys.executable, __file__, "--inside", name, *limits, f"-artifact_prefix={seeds}-", str(seeds)]
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        env = os.environ | {"TMPDIR": scratch}
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds + 120, env=env)
        command = [sys.executable, __file__, "--again", name, str(seeds)]
        reread = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    said = ran.stderr
    pulses = [(int(n), int(mb)) for n, mb in PULSE.findall(said)]
    done = DONE.search(said)
    runs = int(done[1]) if done else max((n for n, _ in pulses), default=0)
    sizes = [mb for n, mb in pulses if n >= runs // 4] or [0]
    most = max((mb for _, mb in pulses), default=0)
    ended = "stood" if done else "FAILED: " + next((x for x in said.splitlines() if "ERROR" in x or "Error" in x), "?")
    per_s = runs // max(1, int(done[2])) if done else 0
    print(
        f"{name:16} {runs:10,} inputs {per_s:7,}/s  {most:5} MB at most, {sizes[-1] - sizes[0]:+4} MB; "
        f"{reread.stdout.strip() or reread.stderr[-300:]}  {ended}",
        flush=True,
    )
    if not done:
        print(said[said.find("=== Uncaught Python exception") :].partition("==ERROR")[0][:3000], flush=True)
    return done is not None


def inside(name: str, words: list[str]) -> None:
    """The process of one parser; never returns."""
    import atheris

    with atheris.instrument_imports(include=["pacemark"]):
        from support import parsers

        parsers.sparing = 64
        parser = parsers.PARSERS[name]
        parser.read(parser.seeds[0])  # what is imported late counts too
    for n, seed in enumerate(parser.seeds):
        (Path(words[-1]) / f"seed{n}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *words], parser.read)
    atheris.Fuzz()


def again(name: str, seeds: Path) -> None:
    """Read what the fuzzer kept over and over without it, and tell what that makes the memory grow by."""
    from support import parsers

    parsers.sparing = 64
    inputs = [path.read_bytes() for path in sorted(seeds.iterdir())]
    rounds = max(4, AGAIN // len(inputs))
    sizes = []
    for _ in range(rounds):
        for data in inputs:
            parsers.PARSERS[name].read(data)
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    grown = (sizes[-1] - sizes[rounds // 4]) / 1e6
    print(f"{rounds * len(inputs):,} read again: {grown:+.1f} MB")


def main() -> None:
    if sys.argv[1:2] == ["--again"]:
        return again(sys.argv[2], Path(sys.argv[3]))
    if sys.argv[1:2] == ["--inside"]:
        return inside(sys.argv[2], sys.argv[3:])
    from support.parsers import PARSERS

    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("parsers", nargs="*", default=list(PARSERS), metavar="PARSER")
    words.add_argument("--seconds", type=int, help="for each parser; 60, or an hour with --inputs")
    words.add_argument("--inputs", type=int, default=0, help="for each parser; without it as many as fit")
    words.add_argument("--corpus", type=Path)
    given = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus, seconds = given.corpus or Path(folder), given.seconds or (3600 if given.inputs else 60)
        stood = [fuzzed(name, seconds, given.inputs, corpus) for name in given.parsers]
    sys.exit(0 if all(stood) else 1)


if __name__ == "__main__":
    main()
