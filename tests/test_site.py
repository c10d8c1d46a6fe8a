"""Claims about the site: every public name has its place in the reference, and every page in a table of contents."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest

import nbflow as nf
from nbflow._load import DECLARED

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = {path.stem: path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.rst"))}
LISTED = [name for text in REFERENCE.values() for name in re.findall(r"^    nbflow\.([\w.]+)$", text, re.MULTILINE)]
# Public as a whole, and not by the names of their files.
MODULES = ("data", "plot", "scalars", "statistics", "counter", "records")


def public(module):
    """Return the functions and classes that a public module offers; not those of another public one."""
    found = importlib.import_module(f"nbflow.{module}")
    wanted = getattr(found, "__all__", None) or [name for name in vars(found) if not name.startswith("_")]
    for name in wanted:
        thing = getattr(found, name)
        home = getattr(inspect.unwrap(thing) if callable(thing) else thing, "__module__", "") or ""
        here = home == found.__name__ or home.startswith(f"{found.__name__}._") or hasattr(found, "__all__")
        kind = type(thing) is type if module == "records" else callable(thing)  # not `Floats`
        if here and kind and not hasattr(nf, name):
            yield f"{module}.{name}"


def test_every_public_name_has_a_place_in_the_reference_and_only_one():
    assert sorted(set(nf.__all__) - set(LISTED)) == []
    assert sorted(name for name in set(LISTED) if LISTED.count(name) > 1) == []


@pytest.mark.parametrize("module", MODULES)
def test_every_name_of_a_public_module_has_a_place_in_the_reference(module):
    assert sorted(set(public(module)) - set(LISTED)) == []


def test_the_reference_has_no_name_that_is_not_there():
    for name in LISTED:
        found = nf
        for part in name.split("."):
            found = getattr(found, part)


def test_the_names_of_all_units_are_listed():
    assert set(re.findall(r"^\.\. units:: (\w+)$", REFERENCE["extend"], re.MULTILINE)) == set(DECLARED)


def test_the_names_that_are_no_function_and_no_class_are_named():
    for module, page in {"plot": "plot", "scalars": "extend", "counter": "extend"}.items():
        found = importlib.import_module(f"nbflow.{module}")
        for name in (name for name in vars(found) if name.isupper() and name[0] != "_" and len(name) > 1):
            assert re.search(rf"\b{name}\b", REFERENCE[page]), f"nbflow.{module}.{name}"


def test_every_page_of_the_reference_is_in_its_table_of_contents():
    assert set(re.findall(r"^    (\w+)$", REFERENCE["index"], re.MULTILINE)) == set(REFERENCE) - {"index"}
