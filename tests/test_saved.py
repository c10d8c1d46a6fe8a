"""Claims about networks in files: what is saved comes back to the bit, others read the same, nothing is believed."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from cases import CELLS, DTYPES
from test_pickles import LEAKY
from tolerance import same_bits

import nbflow as nf
from nbflow.storage import _safetensors

NET = nf.Network("lstm", 3, 4, 2)
THETA = nf.init(NET, "glorot", rng=0)

LAYER = {"cell": "lstm", "n_in": 3, "n_hidden": 4, "n_out": 2, "loss": "softmax", "dtype": "float32"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.mark.sim
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("replicas", [None, 1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_what_is_saved_comes_back_to_the_bit(path, cell, replicas, dtype):
    net = nf.Network(cell, 3, 4, 2, "square", dtype)
    theta = nf.init(net, "glorot", rng=0, replicas=replicas)
    theta.flat[0], theta.flat[1] = np.nan, -np.inf
    nf.save(path, net, theta)
    again, found = nf.load(path)
    assert again == net
    assert same_bits(found, theta)
    assert found.dtype == theta.dtype
    assert found.flags.writeable
    assert os.listdir(path.parent) == [path.name], "nothing else is left"


@pytest.mark.parametrize("replicas", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_library_of_the_format_reads_the_same_blocks(path, replicas, dtype):
    library = pytest.importorskip("safetensors.numpy")
    from safetensors import safe_open

    for cell in CELLS:
        net = nf.Network(cell, 3, 5, 2, dtype=dtype)
        theta = nf.init(net, "glorot", rng=0, replicas=replicas)
        nf.save(path, net, theta)
        wanted = {name: block for name, block in nf.unpack(net, theta)._asdict().items() if block.size}
        found = library.load_file(path)
        assert found.keys() == wanted.keys()
        assert all(same_bits(found[name], wanted[name]) for name in wanted)
        with safe_open(path, "numpy") as file:
            about = file.metadata()
        assert json.loads(about["network"])["cell"] == cell


def test_what_the_library_writes_is_read(path):
    library = pytest.importorskip("safetensors.numpy")
    nf.save(path, NET, THETA)
    arrays, about = _safetensors.read(path)
    library.save_file(arrays, path, about)
    net, theta = nf.load(path)
    assert net == NET
    assert same_bits(theta, THETA)


def test_the_same_network_gives_the_same_bytes_and_replaces_the_one_before(path):
    nf.save(path, NET, THETA)
    first = path.read_bytes()
    nf.save(path, NET, 2 * THETA)
    assert path.read_bytes() != first
    nf.save(path, NET, THETA)
    assert path.read_bytes() == first
    assert int.from_bytes(first[:8], "little") % 8 == 0, "numbers are aligned for whoever maps the file"


def test_the_best_of_a_run_can_be_saved(path):
    recipe = nf.Recipe(lengths=10, max_updates=4, evaluate_every=2, evaluate_size=20)
    net = nf.Network("tanh", 6, 4, 4)
    run = nf.train(net, nf.init(net, "smart_tanh", rng=0, replicas=2), "temporal_order", recipe)
    nf.save(path, net, run.best.theta)
    assert same_bits(nf.load(path)[1], run.best.theta)


def test_a_write_that_fails_leaves_the_file_before(path, monkeypatch):
    nf.save(path, NET, THETA)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_safetensors.os, "fsync", full)
    with pytest.raises(OSError, match="could not be written: No space left"):
        nf.save(path, NET, 2 * THETA)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# --- Units of one's own.


def test_a_cell_of_ones_own_is_saved_by_name_and_asked_for(path):
    net = nf.Network(LEAKY, 3, 4, 2)
    theta = nf.init(net, "glorot", rng=0)
    nf.save(path, net, theta)
    with pytest.raises(ValueError, match=r"has a cell of its own, test_pickles\.step; expected cell= .* Write nbflow"):
        nf.load(path)
    again, found = nf.load(path, cell=LEAKY)
    assert again == net
    assert same_bits(found, theta)
    with pytest.raises(ValueError, match=r"cell has .*gates.*; expected .*Give the one that it was saved with"):
        nf.load(path, cell=nf.cells.gru.CELL)


def test_a_built_in_unit_that_was_passed_as_an_object_is_saved_by_its_name(path):
    net = nf.Network(nf.cells.tanh.CELL, 3, 4, 2, loss=nf.losses.square.LOSS)
    nf.save(path, net, nf.init(net, "glorot", rng=0))
    assert nf.load(path)[0] == nf.Network("tanh", 3, 4, 2, loss="square")


def test_another_cell_than_the_files_is_refused(path):
    nf.save(path, NET, THETA)
    assert nf.load(path, cell=nf.cells.lstm.CELL)[0] == NET
    with pytest.raises(ValueError, match=r"cell is given, and path .* has 'lstm'; expected None"):
        nf.load(path, cell=LEAKY)


@pytest.mark.parametrize("replicas", [None, 2])
def test_a_stack_comes_back_to_the_bit(path, replicas):
    for cells in (("lstm",), ("tanh", "lstm", "gru"), ("tanh", LEAKY)):
        stack = nf.Stack([nf.Network(cell, 3 if k == 0 else 4, 4, 2, "square") for k, cell in enumerate(cells)])
        theta = nf.init(stack, "glorot", rng=0, replicas=replicas)
        nf.save(path, stack, theta)
        own = [cell if cell is LEAKY else None for cell in cells]
        again, found = nf.load(path, cell=own)
        assert again == stack
        assert same_bits(found, theta)
    with pytest.raises(ValueError, match="has a cell of its own"):
        nf.load(path)
    with pytest.raises(ValueError, match="cell has 3 entries; expected one for each of 2 layers"):
        nf.load(path, cell=[None, LEAKY, None])


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([], "its layers are none"),
        (3, "its layers are none"),
        ([3], "cannot be read"),
        ([{"cell": "tanh"}], "cannot be read"),
        ([LAYER, LAYER], "its layers do not fit"),
        ([LAYER], "it holds w_in, .* and not 0.w_in"),
    ],
)
def test_layers_that_make_no_sense_are_refused(path, layers, found):
    nf.save(path, NET, THETA)
    arrays, _ = _safetensors.read(path)
    _safetensors.write(path, arrays, {"network": json.dumps({"layers": layers})})
    with pytest.raises(ValueError, match=rf"is damaged: .*{found}"):
        nf.load(path)


# --- Hostile files.


def made(path, header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + body)


def one(shape=(2,), offsets=(0, 8), dtype="F32", **more):
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}}


HOSTILE = {
    "empty": lambda path: path.write_bytes(b""),
    "short": lambda path: path.write_bytes(b"\x01\x00"),
    "header beyond the file": lambda path: made(path, b"{}", length=2**62),
    "header a little beyond": lambda path: made(path, b"{}", length=3),
    "no json": lambda path: made(path, b"{nothing"),
    "no text": lambda path: made(path, b"\xff\xfe{}"),
    "a list": lambda path: made(path, []),
    "nested": lambda path: made(path, b"[" * 200_000),
    "a name twice": lambda path: made(path, b'{"w": 1, "w": 2}'),
    "offsets beyond the file": lambda path: made(path, one(), b"\0" * 7),
    "offsets backwards": lambda path: made(path, one(offsets=(8, 0)), b"\0" * 8),
    "negative offsets": lambda path: made(path, one(offsets=(-8, 0)), b"\0" * 8),
    "a gap before": lambda path: made(path, one(offsets=(4, 12)), b"\0" * 12),
    "bytes of nobody": lambda path: made(path, one(), b"\0" * 9),
    "two that overlap": lambda path: made(
        path, {**one(), "v": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"\0" * 12
    ),
    "two in one place": lambda path: made(path, {**one(), "v": one()["w"]}, b"\0" * 8),
    "offsets that are no numbers": lambda path: made(path, one(offsets=(0.0, 8.0)), b"\0" * 8),
    "three offsets": lambda path: made(path, one(offsets=(0, 4, 8)), b"\0" * 8),
    "a larger shape": lambda path: made(path, one(shape=(3,)), b"\0" * 8),
    "a huge shape": lambda path: made(path, one(shape=(2**62, 4)), b"\0" * 8),
    "a shape that wraps around": lambda path: made(path, one(shape=(2**32, 2**32, 2)), b"\0" * 8),
    "a negative shape": lambda path: made(path, one(shape=(-1, -2)), b"\0" * 8),
    "a shape of truths": lambda path: made(path, one(shape=(True, 2)), b"\0" * 8),
    "another dtype": lambda path: made(path, one(dtype="BF16", shape=(4,)), b"\0" * 8),
    "no dtype": lambda path: made(path, one(dtype=["F32"]), b"\0" * 8),
    "more than there is to say": lambda path: made(path, one(pickle="x"), b"\0" * 8),
    "words that are none": lambda path: made(path, {"__metadata__": {"network": 3}}),
    "of something else": lambda path: made(path, one(), b"\0" * 8),
}


@pytest.mark.sim
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_one_clear_error(path, kind):
    HOSTILE[kind](path)
    with pytest.raises(ValueError, match=r"^path .*; expected .*\. [A-Z].*\.$") as caught:
        nf.load(path)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 500 + len(str(path))


def rewritten(path, arrays=None, network=None, **about):
    nf.save(path, NET, THETA)
    there, said = _safetensors.read(path)
    told = {**json.loads(said["network"]), **(network or {})}
    _safetensors.write(path, there if arrays is None else arrays(there), {"network": json.dumps(told), **about})


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


WRONG = {
    "another size": ({"network": {"n_hidden": 5}}, "w_in has shape"),
    "a huge size": ({"network": {"n_hidden": 2**40}}, "n_in, n_hidden, n_out"),
    "a size of none": ({"network": {"n_in": 0}}, "n_in, n_hidden, n_out"),
    "a size that is a truth": ({"network": {"n_in": True}}, "n_in, n_hidden, n_out"),
    "a size in words": ({"network": {"n_in": "3"}}, "n_in of its network"),
    "another cell": ({"network": {"cell": "gru"}}, "and not w_in, w_rec, bias, bias_rec"),
    "no cell": ({"network": {"cell": None}}, "cell of its network"),
    "a cell of the future": ({"network": {"cell": "mamba"}}, "has cell 'mamba'; expected one of"),
    "another dtype": ({"network": {"dtype": "float64"}}, "w_in has shape .* and dtype float32"),
    "a dtype of none": ({"network": {"dtype": "float16"}}, "has dtype 'float16'"),
    "a block is missing": ({"arrays": without("w_rec")}, "it holds w_in, bias, w_out, b_out and not"),
    "a block too many": ({"arrays": lambda a: {**a, "more": a["bias"]}}, "it holds .*more"),
    "one with replicas": ({"arrays": lambda a: {**a, "w_in": a["w_in"][None]}}, "w_in has shape"),
    "no json": ({"about": "{"}, "cannot be read"),
}


@pytest.mark.sim
@pytest.mark.parametrize("kind", WRONG)
def test_a_file_that_contradicts_itself_is_refused(path, kind):
    changes, found = WRONG[kind]
    rewritten(path, changes.get("arrays"), changes.get("network"))
    if "about" in changes:
        arrays, _ = _safetensors.read(path)
        _safetensors.write(path, arrays, {"network": changes["about"]})
    with pytest.raises(ValueError, match=found):
        nf.load(path)


def test_wherever_a_file_is_cut_off_or_flipped_it_is_refused_or_whole(path):
    nf.save(path, NET, THETA)
    data = path.read_bytes()
    for length in (*range(0, 64, 7), len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="no safetensors file, or damaged"):
            nf.load(path)
    rng = np.random.default_rng(0)
    header = int.from_bytes(data[:8], "little") + 8
    for place in rng.integers(0, header, 300):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            net, theta = nf.load(path)
        except ValueError:
            continue
        assert (net.size,) == theta.shape


def test_what_is_no_file_is_refused(path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        nf.load(path)
    with pytest.raises(ValueError, match="a directory; expected a file"):
        nf.load(path.parent)
    with pytest.raises(TypeError, match="path is a int"):
        nf.load(3)
    with pytest.raises(OSError, match="no regular file"):
        nf.load("/dev/zero")
    with pytest.raises(OSError, match="no regular file"):
        nf.save("/dev/null", NET, THETA)
    with pytest.raises((TypeError, ValueError), match="theta has"):
        nf.save(path, NET, THETA[:-1])
    assert not path.exists()
