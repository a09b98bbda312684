"""Fuzz one parser, guided by coverage: python -m tests.fuzz.run NAME --runs N --seconds S

Exits 0 after so many inputs (or seconds) without an exception that the parser does not promise, a crash or a hang.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import tempfile
from pathlib import Path

import atheris


def main() -> None:
    """Run until done; a finding ends the process with its input told."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=int, default=0, help="0: no limit")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.disable()
    with atheris.instrument_imports(include=["kws_serve", "kws_board"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[args.name]()

    def one(data: bytes) -> None:
        with contextlib.suppress(*target.refusals):
            target.run(data)

    with tempfile.TemporaryDirectory() as corpus:
        for i, seed in enumerate(target.seeds):
            (Path(corpus) / f"seed-{i}").write_bytes(seed)
        flags = [
            f"-runs={args.runs}",
            f"-seed={args.seed}",
            "-timeout=10",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        flags += [f"-max_total_time={args.seconds}"] if args.seconds else []
        flags += [f"-max_len={target.longest}", "-artifact_prefix=/tmp/kws-fuzz-"]
        atheris.Setup([sys.argv[0], *flags, corpus], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
