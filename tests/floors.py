"""The floors: the lowest versions of what nbflow depends on, as pyproject.toml declares them.

Usage: python tests/floors.py [check]

prints them as pip takes them, and with `check` tells whether this Python has them: it exits with 1 if not.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path


def floors() -> dict[str, str]:
    """Return the lowest version of each dependency, as "2.1"."""
    text = Path(__file__).parents[1].joinpath("pyproject.toml").read_text(encoding="utf-8")
    (declared,) = re.findall(r"^dependencies = \[(.*)\]$", text, re.MULTILINE)
    return dict(re.findall(r'"([\w-]+)>=([\d.]+)"', declared))


def main() -> int:
    wanted = floors()
    if "check" not in sys.argv:
        print(" ".join(f"{name}=={lowest}.*" for name, lowest in wanted.items()))
        return 0
    has = {name: version(name) for name in wanted}
    print("floors: " + ", ".join(f"{name} {number}" for name, number in has.items()), flush=True)
    return int(any(not f"{has[name]}.".startswith(f"{lowest}.") for name, lowest in wanted.items()))


if __name__ == "__main__":
    sys.exit(main())
