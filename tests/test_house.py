"""Claims about the structure: imports run one way, and what is private is so."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

import nbflow as nf

ROOT = Path(__file__).parents[1]
PACKAGE = Path(nf.__file__).parent
# From the ground up, a line a floor: written once, in ARCHITECTURE.md.
FLOORS = [
    line.split()
    for line in re.search(r"```floors\n(.*?)```", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL)[1].splitlines()
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Engines, of which nothing is public, and packages of which all is, by the names of their files.
ENGINES = {"cpu", "cuda"}
UNITS = {"cells", "clips", "flows", "inits", "losses", "optimizers", "regularizers", "tasks", "thresholds"}


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path):
    """Return all modules of nbflow that a file imports: at the top, in functions and for types alike."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("nbflow.") for alias in node.names if alias.name.startswith("nbflow.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nbflow":
            package = node.module.removeprefix("nbflow").removeprefix(".")
            for alias in node.names:
                name = f"{package}.{alias.name}".removeprefix(".")
                found.add(name if name in MODULES else package or nf._HOME_OF.get(alias.name, ""))
    return found - {""}


# The package itself imports nothing when it is imported: its arrows are for type checkers.
ARROWS = {name: imported(path) for name, path in MODULES.items() if name}


def room(module):
    return module.split(".")[0]


def test_every_room_stands_on_a_floor():
    assert {room(name) for name in ARROWS} == set(FLOOR_OF)
    assert sum(map(len, FLOORS)) == len(FLOOR_OF)


@pytest.mark.parametrize("name", sorted(ARROWS))
def test_a_module_imports_from_its_own_room_or_from_floors_below(name):
    assert ARROWS[name] <= set(MODULES)
    up = {
        other for other in ARROWS[name] if room(other) != room(name) and FLOOR_OF[room(other)] >= FLOOR_OF[room(name)]
    }
    assert not up


def test_no_imports_run_in_a_circle():
    graphlib.TopologicalSorter(ARROWS).prepare()


def test_the_cpu_knows_nothing_of_the_card():
    assert not [name for name in ARROWS if room(name) == "cpu" and "cuda" in map(room, ARROWS[name])]


def outside():
    """All files that use nbflow as anyone would; benchmarks measure its parts, and look inside."""
    yield from sorted((ROOT / "scripts").glob("*.py"))


def private(module):
    return any(part.startswith("_") for part in module.split("."))


@pytest.mark.parametrize("path", list(outside()), ids=lambda path: path.name)
def test_nothing_outside_imports_what_is_private(path):
    assert not [name for name in imported(path) if private(name) and name not in nf._HOME_OF.values()]
    assert not re.search(r"nbflow\.[\w.]*\b_[a-z]", path.read_text())


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_no_page_shows_an_import_of_what_is_private(page):
    assert not re.search(r"(?:from|import) nbflow\S*\b_|from nbflow\S* import .*\b_[a-z]", page.read_text())


def test_modules_carry_an_underscore_exactly_if_nobody_outside_needs_them():
    homes = set(nf._HOME_OF.values()) | set(nf._MODULES)
    benchmarks = [*(ROOT / "scripts" / "bench").glob("*.py"), *(ROOT / "asv_benchmarks").rglob("*.py")]
    used = {name for path in [*outside(), *benchmarks] for name in imported(path)}
    for name in ARROWS:
        if name.count(".") == 0 or room(name) in ENGINES | UNITS or room(name) in {"data", "statistics"}:
            continue
        public = name in homes or name in used
        assert public or private(name), f"{name} has nothing public: give it an underscore"


def test_no_module_beside_the_public_names_has_the_name_of_one():
    assert not {name for name in ARROWS if "." not in name} & set(nf.__all__)


# Tolerances. Numbers that are none: what a claim is about, or a size to be told from rounding.
DERIVED = {"within", "near", "differenced", "by_chance", "printed"}  # of tests/tolerance.py
NAMES = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol", "tolerance"}
COMPARED = {"approx", "isclose", "allclose", "assert_allclose"}
SMALL = 1e-3


def literals(node):
    """Yield the numbers below 1/2 that stand in an expression, but for those handed to tests/tolerance.py."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in DERIVED:
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, float) and 0 < abs(node.value) < 0.5:
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from literals(child)


def is_sum(node):
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub)


def tolerances(node):
    """Yield by how much a call or a comparison lets numbers differ, as expressions; None where a default does."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        yield from (each.value for each in node.keywords if each.arg in NAMES)
        told = len(node.args) > (1 if name == "approx" else 2) or any(each.arg in NAMES for each in node.keywords)
        if name in COMPARED and not told:
            yield None
        if name in ("assert_close", "assert_interval"):
            yield from node.args[2:3]
    elif isinstance(node, ast.Compare):
        for operator, right in zip(node.ops, node.comparators, strict=True):
            small = (part for part in ast.walk(right) if is_sum(part)) if isinstance(operator, ast.Gt | ast.GtE) else ()
            for part in (right,) if isinstance(operator, ast.Lt | ast.LtE) else small:
                if any(value < SMALL for value in literals(part)):
                    yield part


def bare(source):
    """Return the lines of a test in which a tolerance is a number, and not derived from eps, sizes and condition."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        for tolerance in tolerances(node)
        if tolerance is None or any(literals(tolerance))
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_no_tolerance_is_a_bare_number(path):
    """Each follows from tests/tolerance.py, where the dtype's eps, the sizes and the condition go in."""
    if path.name != "tolerance.py":
        assert bare(path.read_text()) == [], f"{path.name}: take within, near, differenced, by_chance or printed"


@pytest.mark.parametrize(
    "line",
    ["x == pytest.approx(y)", "x == pytest.approx(y, rel=1e-9)", "np.allclose(x, y)", "assert_close(x, y, 1e-5)",
     "x < 1e-8", "x > 1 - 1e-6", "x <= y * (1 + 1e-7)", "f(x, atol=1e-3 * within('float32'))"],
)  # fmt: skip
def test_a_bare_number_is_found(line):
    assert bare(line) == [1]


@pytest.mark.parametrize(
    "line", ["x == near(y)", "assert_close(x, y, within('float64', 1e-3))", "x > 1e-3", "x < 0.01"]
)
def test_what_is_derived_or_is_a_claim_is_let_through(line):
    assert bare(line) == []


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_page_of_the_house_names_is_there(page):
    folders = ("nbflow", "scripts", "tests", "docs", "asv_benchmarks", "examples")
    there = {path.as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / page).read_text()))
    assert len(named) > 10
    missing = {name for name in named if "NAME" not in name and not any(path.endswith(f"/{name}") for path in there)}
    assert not missing


# What an extra brings, and the lowest versions are tried without.
EXTRAS = {"dask", "distributed", "jax", "matplotlib", "mido", "optax", "pandas", "pyarrow", "rich", "torch", "tyro"}


@pytest.mark.parametrize("path", sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.name)
def test_tests_can_be_collected_without_what_an_extra_brings(path):
    """Imported behind `pytest.importorskip`, in a test, or through the script that is under test."""
    text = path.read_text()
    for node in ast.parse(text).body:
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
        for name in names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            root = (name or "").partition(".")[0]
            assert root not in EXTRAS or f'importorskip("{root}' in text, f"{name} at the top"
