"""What benchmarks of files and processes ask for and how they end: a folder on the disk that is measured."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def parser_for(words: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--out`, with these words as its help."""
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a folder on the disk that is measured; by default that of the system")
    return parser


def count(text: str) -> int:
    """Return a number of at least 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def measured_in_a_folder(parser: argparse.ArgumentParser, out: Path | None, measure: Callable[[Path], None]) -> int:
    """Measure in a new folder, which is deleted; return the exit code."""
    try:
        with tempfile.TemporaryDirectory(dir=out) as name:
            measure(Path(name))
    except KeyboardInterrupt:
        print("Stopped early: nothing was measured to its end. The same command begins anew.", file=sys.stderr)
        return 130
    except OSError as error:
        parser.error(f"--out: {error}. Name a folder that can be written.")
    return 0
