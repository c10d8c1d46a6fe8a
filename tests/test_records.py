"""Claims about records: each field is described where its class is, and a record fits a screen whatever it holds.

Records are found, not listed: whoever adds one is under test that day.
"""

from __future__ import annotations

import dataclasses
import html.parser
import importlib
import inspect
import io
import pickle
import pkgutil
import pydoc
import re
from typing import NamedTuple

import numpy as np
import pytest
from tolerance import within

import nbflow as nf
from nbflow._legible import LINES, WIDTH, as_html, as_text, legible, said

# The kernels' own, which no user meets; their fields are described where kernels are.
KERNELS = ("nbflow.cpu", "nbflow.cuda")


def is_record(thing):
    return inspect.isclass(thing) and (
        dataclasses.is_dataclass(thing) or (issubclass(thing, tuple) and hasattr(thing, "_fields"))
    )


def find_records():
    """Return every record of nbflow, by where it is; those of private modules, or with an underscore, are private."""
    found = {}
    for module in pkgutil.walk_packages(nf.__path__, "nbflow."):
        if module.name.startswith(KERNELS) or any(part.startswith("_") for part in module.name.split(".")):
            continue
        for name, thing in vars(importlib.import_module(module.name)).items():
            if is_record(thing) and thing.__module__ == module.name and not name.startswith("_"):
                found[f"{module.name.removeprefix('nbflow.')}.{name}"] = thing
    return found


RECORDS = find_records()
every_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)


def fields_of(record):
    return record._fields if hasattr(record, "_fields") else tuple(field.name for field in dataclasses.fields(record))


def make(record, values):
    """Return a record with these values in its fields, whatever it would say of them."""
    if hasattr(record, "_fields"):
        return record._make(values)
    made = object.__new__(record)
    for name, value in zip(fields_of(record), values, strict=True):
        object.__setattr__(made, name, value)
    return made


def undescribed(record):
    """Return the fields that the docstring does not describe, or whose arrays have no shape or no dtype there."""
    words, found = said(record), []
    for name in fields_of(record):
        kind = words.get(name, "").partition("\n")[0]
        dtypes = re.findall(r"(\S* ?)array of shape", kind)
        holds_arrays = str(inspect.get_annotations(record)[name]).startswith(("Floats", "NDArray"))
        if (
            not kind
            or (holds_arrays and not re.search("array|tuple", kind))
            or not all(
                re.fullmatch(r"(net\.dtype|integer|bool|complex128|(int|float)(32|64)?|of) ", dtype) for dtype in dtypes
            )
        ):
            found.append(name)
    return found


@pytest.mark.sim
def test_every_public_record_is_found():
    public = {getattr(nf, name) for name in nf.__all__ if is_record(getattr(nf, name))}
    assert public <= set(RECORDS.values())
    assert {"Batch", "Trace", "RuleBias", "Recipe", "Swept", "Network"} <= {record.__name__ for record in public}
    assert {nf.statistics.Survival, nf.data.Text} <= set(RECORDS.values())


@pytest.mark.sim
@every_record
def test_every_field_is_described_where_its_record_is(record):
    assert undescribed(record) == []
    assert set(said(record)) == set(fields_of(record)), "a field that is described is not there"


@pytest.mark.sim
@every_record
def test_every_record_shows_itself(record):
    assert record.__repr__ is as_text
    assert record._repr_html_ is as_html


@pytest.mark.sim
def test_a_field_that_is_not_described_is_found():
    class Both(NamedTuple):
        """Some.

        Attributes
        ----------
        one : float64 array of shape (P,)
            Of one.
        three : array of shape (P,)
            Without a dtype.
        four : float
            Without a shape.

        Examples
        --------
        two : float
        """

        one: np.ndarray
        two: float
        three: np.ndarray
        four: nf.records.Floats

    Both.__annotations__["four"] = "Floats"
    assert undescribed(Both) == ["two", "three", "four"]


@pytest.mark.sim
@pytest.mark.parametrize("record", [r for r in RECORDS.values() if hasattr(r, "_fields")], ids=lambda r: r.__name__)
def test_help_on_a_field_says_what_stands_in_the_docstring_and_no_alias(record):
    for name, words in said(record).items():
        assert inspect.getdoc(getattr(record, name)) == words
    assert "Alias for field" not in pydoc.plain(pydoc.render_doc(record))


@pytest.mark.sim
def test_help_on_a_batch_says_its_shapes():
    out = io.StringIO()
    pydoc.Helper(output=out).help(nf.Batch.weights)
    assert "net.dtype array of shape (T, B)" in out.getvalue()


class Silent(np.ndarray):
    """An array that may be looked at and not computed with."""

    def __array_ufunc__(self, *_args, **_kwargs):
        raise AssertionError("something was computed")

    def __array_function__(self, *_args, **_kwargs):
        raise AssertionError("something was computed")


class Counted(list):
    """A list that counts how many of its entries were looked at."""

    looked = 0

    def __getitem__(self, k):
        found = super().__getitem__(k)
        self.looked += len(found) if isinstance(k, slice) else 1
        return found

    def __iter__(self):
        for k in range(len(self)):
            yield self[k]


@pytest.fixture(scope="module")
def huge():
    """Values of every kind that a record may hold, each of them huge; and the lists among them, which count."""
    array = np.broadcast_to(np.float32(1.5), (10**5, 10**4, 10**3)).view(Silent)
    numbers, rows = Counted(range(10**6)), Counted({"seed": k, "error": k / 7, "name": "n" * 500} for k in range(10**5))
    interval = nf.Interval(1 / 3, -1 / 3, 2 / 3)
    return [
        array, numbers, rows, {f"column {k}": numbers for k in range(1000)}, "x" * 10**6, tuple(range(10**5)),
        {f"rule {k}": interval for k in range(50)}, {f"setting {k}": k for k in range(10**5)}, [[numbers] * 3] * 3,
        b"y" * 10**6, set(range(10**5)), nf.Trace(array, array, array, array, array), lambda x: x, None, 1e300 / 3,
        np.array([], np.float64), np.array(["z" * 10**5] * 9), {"a": {"b": {"c": {"d": rows}}}}, np.float64(1 / 3),
    ], (numbers, rows)  # fmt: skip


@pytest.mark.sim
@every_record
def test_a_record_fits_a_screen_whatever_it_holds_and_nothing_is_computed(record, huge):
    values, lists = huge
    names = fields_of(record)
    for shift in range(len(values)):
        made = make(record, [values[(k + shift) % len(values)] for k in range(len(names))])
        for one in lists:
            one.looked = 0
        shown = repr(made)
        lines = shown.splitlines()
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= WIDTH
        assert shown.startswith(f"{record.__name__}(")
        assert all(f"{name}=" in shown for name in names)
        assert len(made._repr_html_()) < 300 * LINES + 2 * len(record.__doc__)
        assert all(one.looked < 10_000 for one in lists)


@pytest.mark.sim
def test_a_small_record_is_shown_as_it_is_written():
    for made in (
        nf.Interval(0.1, -1 / 3, 2.0),
        nf.Clip("norm", 1.0),
        nf.Flow("norm", alpha=2.0, derivative="exact"),
        nf.MicrobatchClip(size=4, threshold=0.25),
        nf.Network("tanh", 6, 50, 4),
        nf.Kinds(1.0, 2.0, 3.0),
    ):
        assert "\n" not in repr(made)
        assert eval(repr(made), vars(nf)) == made


@pytest.mark.sim
def test_arrays_are_shown_by_dtype_shape_and_both_ends():
    batch = nf.Batch(np.arange(12).reshape(3, 4), np.array([[1.0, 2.0]]), np.full((2, 5), 1 / 3, np.float32))
    assert repr(batch) == (
        "Batch(\n    inputs=int64 (3, 4) [0, 1, ..., 11],\n    targets=float64 (1, 2) [1, 2],\n"
        "    weights=float32 (2, 5) [0.3333, 0.3333, ..., 0.3333],\n)"
    )


@pytest.mark.sim
def test_a_sweep_is_shown_by_the_columns_in_which_its_runs_differ():
    rows = [
        {"task": "copy", "recipe.lr": lr, "seed": seed, "failure": None, "error": seed / 8, "history": {"a": [1] * 999}}
        for lr in (0.01, 0.03) for seed in range(30)
    ]  # fmt: skip
    assert (
        repr(nf.Swept(rows, missing=2))
        == """\
Swept(
    runs=list of 60:
        'recipe.lr': [0.01, 0.01, ..., 0.03],
        'seed': [0, 1, ..., 29],
        'error': [0, 0.125, ..., 3.625],
    missing=2,
    interrupted=False,
)"""
    )


@pytest.mark.sim
def test_of_many_columns_those_of_both_ends_are_shown_settings_and_results():
    rows = [{f"column {k}": k + row for k in range(30)} for row in range(9)]
    lines = repr(nf.Swept(rows)).splitlines()
    assert lines[2:12] == [
        *(f"        'column {k}': [{k}, {k + 1}, ..., {k + 8}]," for k in range(4)),
        "        ...: 21 more,",
        *(f"        'column {k}': [{k}, {k + 1}, ..., {k + 8}]," for k in range(25, 30)),
    ]


@pytest.mark.sim
def test_a_run_is_shown_by_the_columns_of_its_history():
    history = {"update": list(range(100, 20_001, 100)), "loss": [1.3863] * 199 + [0.25]}
    run = nf.Run(np.zeros(3054, np.float32), 20_000, 31.5, history, {"update": [1000], "error": [0.75]})
    assert (
        repr(run)
        == """\
Run(
    theta=float32 (3054,) [0, 0, ..., 0],
    updates=20000,
    seconds=31.5,
    history=dict of 2:
        'update': list of 200 [100, 200, ..., 20000],
        'loss': list of 200 [1.386, 1.386, ..., 0.25],
    evaluations={'update': [1000], 'error': [0.75]},
    best=None,
    unit=None,
    first_passage=None,
    stays_below=False,
    interrupted=False,
    shown=0,
    before=0,
    recipe={},
)"""
    )


class Cells(html.parser.HTMLParser):
    """The words in the cells of a table, and the tags and titles that it has."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words, self.titles = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.titles += [value for name, value in attrs if name == "title"]

    def handle_data(self, data):
        self.words += [data] if data.strip() else []


@pytest.mark.sim
def test_a_notebook_shows_a_table_in_which_nothing_of_a_value_is_markup():
    nasty = "</td><script>alert('\"&')</script>"
    run = nf.Run(np.zeros(3), history={nasty: [nasty] * 9, "b": [1] * 9}, recipe={nasty: nasty}, first_passage=nasty)
    seen = Cells(run._repr_html_())
    assert seen.tags == {"table", "caption", "tr", "th", "td"}
    assert seen.words[:3] == ["Run", "theta", "float64 (3,) [0, 0, 0]"]
    assert repr(nasty) in seen.words
    assert said(nf.Run)["theta"] in seen.titles


@pytest.mark.sim
def test_records_stay_what_they_are():
    batch = nf.Batch(np.zeros((3, 2)), np.zeros((3, 2)), np.ones((3, 2)))
    assert isinstance(batch, tuple)
    assert len(batch) == 3
    assert batch._replace(weights=None).weights is None
    assert batch[2] is batch.weights
    again = pickle.loads(pickle.dumps(batch))
    assert type(again) is nf.Batch
    assert np.array_equal(again.weights, batch.weights)
    for made in (nf.Clip("norm", 1.0), nf.Recipe(), nf.Interval(1.0, 2.0, 3.0), nf.Swept([{"a": 1}])):
        assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.sim
def test_a_record_without_a_docstring_as_under_python_OO_still_shows_itself():
    class Bare(NamedTuple):
        a: int

    Bare.__doc__ = None
    assert repr(legible(Bare)(1)) == "Bare(a=1)"
    assert Cells(Bare(1)._repr_html_()).words == ["Bare", "a", "1"]


@pytest.mark.sim
def test_a_record_that_holds_itself_is_shown():
    swept = nf.Swept([])
    swept.runs.append({"self": swept, "list": swept.runs})
    assert len(repr(swept)) < WIDTH * LINES


# All different, but for what has no say in a shape together.
SIZES = {"T": 7, "B": 2, "N": 3, "H": 5, "M": 4, "G": 4, "S": 2, "k": 8, "n": 6, "m": 2, "v": 3, "size": 1, "K": 2}
DTYPES = {"net.dtype": "f4", "float64": "f8", "int64": "i8", "int32": "i4", "integer": "iu", "bool": "?"}


@pytest.fixture(scope="module")
def returned():
    """Records as nbflow returns them, of an LSTM in float32, each with the sizes that its shapes are made of."""
    T, B, N, H, M, n = (SIZES[name] for name in "TBNHMn")
    net, rng = nf.Network("lstm", N, H, M), np.random.default_rng(0)
    theta, weights = nf.init(net, "orthogonal", rng=0), np.full((T, B), 0.5 / T, np.float32)
    batches = [nf.Batch(rng.normal(size=(T, B, N)).astype("f4"), rng.integers(0, M, (T, B)), weights) for _ in range(n)]
    batch, sizes, examples = batches[0], SIZES | {"P": net.size}, {"E": n * B}
    state = np.zeros((B, SIZES["S"], H), np.float32)
    bias = nf.clipping_bias(net, theta, batches, {"norm": nf.Clip("norm", 0.1)}, rng=0, resamples=50)
    found = [
        batch, nf.unpack(net, theta), nf.gradient(net, theta, batch, flow=nf.Flow("norm", 2.0)),
        nf.gradient(net, theta, batch, state=state, wrt=("inputs", "state")),
        nf.gradient(net, theta, batch, clip_example=0.1),
        nf.trace(net, theta, batch), nf.gains_by_lag(net, theta, batch), nf.saturation(net, theta, batch),
        nf.recurrent_spectrum(net, theta), nf.clip(net, theta, nf.Clip("norm", 0.01)),
        nf.jvp(net, theta, batch.inputs, theta_dot=theta), nf.vjp(net, theta, batch.inputs, d_state=state),
        nf.jacobian_singular_values(net, theta, batch.inputs, SIZES["k"]), nf.check_gradient(net, theta, batch),
        nf.average_of_clipped(net, theta, batches, sizes=[1, 2], thresholds=[0.1, 1.0, 3.0]),
        nf.statistics.survival(nf.statistics.passages(range(1, n), 9)),
        nf.calibrate_threshold(net, theta, lambda update: batch, nf.Recipe(), updates=n),
        nf.apply_update("adam", theta, theta, 0.1)[1],
    ]  # fmt: skip
    return [(record, sizes | {"Q": 9}) for record in found] + [
        (bias, sizes | examples),
        (bias.rules["norm"], sizes | examples),
    ]


def agrees(value, kind, sizes):
    """Tell whether an array has one of the shapes that its description gives, in the dtype that stands before it."""
    shapes = re.findall(r"(\S+ array )?of shape \((.*?)\)", kind)
    dtypes = [dtype.removesuffix(" array ") for dtype, _ in shapes]
    for k, (_, shape) in enumerate(shapes):
        dtype = DTYPES[dtypes[k] or dtypes[k - 1]]
        fits = value.dtype.kind in "iu" if dtype == "iu" else value.dtype == np.dtype(dtype)
        if fits and value.shape == eval(f"({shape})", {}, sizes):
            return True
    return False


def test_shapes_and_dtypes_are_those_that_the_docstrings_give(returned):
    looked_at = set()
    for record, sizes in returned:
        for name, value in zip(record._fields, record, strict=True):
            if isinstance(value, nf.SequenceMean):
                shape = re.search(r"SequenceMean of shape \((.*)\)", said(type(record))[name])[1]
                assert {part.shape for part in value} == {eval(f"({shape})", {}, sizes)}, (type(record), name)
            if isinstance(value, np.ndarray) and value.size:
                kind = said(type(record))[name].splitlines()[0]
                assert agrees(value, kind, sizes), (type(record), name, kind, value.dtype, value.shape)
                looked_at.add((type(record), name))
    wanted = {
        (type(record), name)
        for record, _ in returned for name in record._fields if "array of shape" in said(type(record))[name]
    }  # fmt: skip
    # Numbers that are arrays for replicas only, and a cell without a second bias.
    alone = {"loss", "omega", "counted", "left_out", "norm", "clipped_norm", "fraction", "cosine", "finite", "mean",
             "median", "nonfinite", "low", "high", "bias_rec", "count"}  # fmt: skip
    assert {name for _, name in wanted - looked_at} <= alone


def test_norms_scale_with_the_batch_as_the_docstrings_say():
    """The same sequences B times: a mean over them has the size of one, a sum has B times that."""
    B, net = 4, nf.Network("lstm", 3, 5, 4, dtype="float64")
    theta, rng = nf.init(net, "orthogonal", rng=0), np.random.default_rng(0)
    inputs, targets = rng.normal(size=(6, 1, 3)), rng.integers(0, 4, (6, 1))

    def batch(size, weight):
        return nf.Batch(np.tile(inputs, (1, size, 1)), np.tile(targets, size), np.full((6, size), weight))

    one, mean, total = batch(1, 1.0), batch(B, 1.0 / B), batch(B, 1.0)
    size = [np.linalg.norm(nf.gradient(net, theta, b).d_theta) for b in (one, mean, total)]
    assert np.allclose(size, np.array([1, 1, B]) * size[0], rtol=within("float64", 20, 500))
    each = [nf.gradient(net, theta, b, clip_example=1e9).example_norms for b in (one, mean, total)]
    assert np.allclose(each[1], size[0], rtol=within("float64", 20, 500))
    assert np.allclose(each[2], B * size[0], rtol=within("float64", 20, 500))
    alone, shared, added = (nf.trace(net, theta, b) for b in (one, mean, total))
    assert np.allclose(shared.delta_norm, alone.delta_norm / B, rtol=within("float64", 20, 500))
    assert np.allclose(added.delta_norm, alone.delta_norm, rtol=within("float64", 20, 500))
    assert np.allclose(shared.gain, alone.gain, rtol=within("float64", 20, 500))
