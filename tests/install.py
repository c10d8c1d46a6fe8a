"""Build the source archive, from it the wheel, install that elsewhere, and run a sample of the tests against it.

What is tested is what users install: a file that the archive lacks, or that the wheel lacks, is missed here. Needs pip
and its index for a moment. Exits with 1 if something is missing or a test failed.

Usage: python tests/install.py [--one-in 400] [more arguments for pytest]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Folders of the repository that the source archive has, and pages.
ARCHIVED = ("nbflow", "tests", "scripts", "asv_benchmarks", "docs", "examples", "results")
USED = """
import pathlib, nbflow as nf
assert pathlib.Path(nf.__file__).is_relative_to({prefix!r}), nf.__file__
task = nf.load_task("temporal_order")
net = nf.Network("tanh", task.n_in, 8, task.n_out, task.loss)
theta = nf.init(net, "smart_tanh", rng=0)
found = nf.gradient(net, theta, task.sample(seed=0, index=0, batch_size=4, length=10))
assert nf.clip(net, found.d_theta, nf.Clip("norm", 1e-3)).fraction == 1
"""


def files(folder: Path, *under: str) -> set[str]:
    """Return the files that git would keep below these folders."""
    listed = subprocess.run(["git", "ls-files", "-z", *under], cwd=folder, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and folder.joinpath(name).exists()}


def missing(wanted: set[str], there: set[str], what: str) -> bool:
    """Say what is not there; return whether anything is."""
    left = sorted(wanted - there)
    if left:
        print(f"{what} lacks {', '.join(left[:10])}{' and more' if len(left) > 10 else ''}")
    return bool(left)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one-in", type=int, default=400, help="the part of the tests that is run, by their names")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        prefix = place / "environment"
        subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
        python = prefix / "bin" / "python"
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "hatchling>=1.26"], check=True)
        subprocess.run([python, "-m", "hatchling", "build", "-t", "sdist", "-d", place], cwd=ROOT, check=True)
        (archive,) = place.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(place, filter="data")
        source = place / archive.name.removesuffix(".tar.gz")
        has = {one.relative_to(source).as_posix() for one in source.rglob("*") if one.is_file()}
        pages = {page.name for page in ROOT.glob("*.md")}
        bad = missing(files(ROOT, *ARCHIVED) | pages | {"Makefile", "LICENSE", "pyproject.toml"}, has, archive.name)
        subprocess.run([python, "-m", "hatchling", "build", "-t", "wheel", "-d", place], cwd=source, check=True)
        (wheel,) = place.glob("*.whl")
        bad |= missing(files(ROOT, "nbflow"), set(zipfile.ZipFile(wheel).namelist()), wheel.name)
        # Without the tests' extra first: what nbflow needs is what its metadata says.
        subprocess.run([*pip, wheel], check=True)
        outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run([python, "-c", USED.format(prefix=str(prefix))], cwd=place, env=outside, check=True)
        subprocess.run([*pip, f"{wheel}[test]"], check=True)
        command = [prefix / "bin" / "pytest", source / "tests", "-q", "-m", "numeric and not gpu", "-p",
                   "no:cacheprovider", f"--one-in={options.one_in}", *more]  # fmt: skip
        # Not in the source's folder, and not its nbflow: what is imported is what was installed.
        (source / "nbflow").rename(source / "not-this-nbflow")
        failed = subprocess.run(command, cwd=place, env=outside).returncode
    return int(bad or failed != 0)


if __name__ == "__main__":
    sys.exit(main())
