"""The declaration of the kernels' records: complete, used, and kept by every view."""

from __future__ import annotations

import itertools
import pathlib
import re

import numpy as np
import pytest
from cases import make_case, make_replicas

import nbflow as nf
from nbflow._compile import JIT
from nbflow.cpu import memory, record, views
from nbflow.cpu.program import set_program
from nbflow.cpu.purpose import Purpose
from nbflow.cpu.workspace import Workspace
from nbflow.model._shape import Shape

CODE = "".join(path.read_text() for path in pathlib.Path(record.__file__).parent.glob("*.py"))
interpreted = pytest.mark.skipif(JIT, reason="compiled views do not look at bounds")
PURPOSES = [
    Purpose(),
    Purpose(keep_delta=True),
    Purpose(derivative="immediate", every=64),
    Purpose(derivative="exact"),
    Purpose(tangent="loss"),
    Purpose(group_rows=3),
    Purpose(group_rows=3, masked=True, joint=True),
]


@pytest.mark.sim
def test_every_field_says_what_it_is_and_every_shape_names_sizes_of_its_record():
    for fields in (record.SHARD, record.REPLICA):
        for name, field in fields.items():
            if isinstance(field, record.Array):
                for axis in field.axes:
                    assert all(size.isdigit() or size in fields for size in (axis.size, axis.of)), name
                assert set(field.words) <= record.CONDITIONS.keys(), name
                field = field.what
            assert len(field) > 0, name


@pytest.mark.sim
def test_every_field_is_read_by_a_kernel_or_a_shape():
    sizes = {size for array in record.ARRAYS.values() for axis in array.axes for size in (axis.size, axis.of)}
    views_of_blocks = {f"{block}_size" for block in record.BLOCKS}
    for name in (record.SHARD | record.REPLICA | record.REALS | record.SHARD_REALS).keys() - sizes - views_of_blocks:
        read = rf"\b(?:shard|replica|shard_at\(address\))\.{name}\b"
        assert re.search(rf"{read}|, \"{name}\"[,)]|\"{name}\" if|else \"{name}\"", CODE), name


@pytest.mark.sim
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("cell", ["tanh", "gru"])
def test_arrays_of_a_workspace_lie_apart_inside_its_memory(cell, purpose):
    net = nf.Network(cell, 3, 5, 2, dtype="float32")
    space = Workspace(net, Shape(2, 130, 9, tokens=cell == "gru"), purpose)
    space.set_direction(None)
    first = space._memory.ctypes.data
    ranges = set()
    for (_, name), pairs in space.bounds().items():
        if name not in (*record.BORROWED, *record.OF_REPLICA, "partial"):
            ranges |= {pair for pair in pairs if pair[0] < pair[1]}
    ordered = sorted(ranges)
    assert len(ordered) > 20
    assert first <= ordered[0][0]
    assert ordered[-1][1] <= first + space._memory.size
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(ordered))
    assert all(start % 64 == 0 for start, _ in ordered)


@pytest.mark.sim
def test_a_gathered_tape_has_the_shape_that_is_declared_without_padding():
    space = Workspace(nf.Network("lstm", 3, 5, 2), Shape(2, 6, 9, tokens=False), Purpose(keep_delta=True))
    for name, shape in {
        "states": (2, 7, 9, 2, 5), "delta": (2, 7, 9, 2, 5), "saved": (2, 6, 9, len(space.cell.saved), 5),
        "pre": (2, 6, 9, 4, 5), "y": (2, 6, 9, 2), "delta_norm": (2, 7, 9), "v_norm": (2, 6, 9),
    }.items():  # fmt: skip
        assert space.gather(name).shape == shape, name
    space.fit(4)
    assert space.gather("states").shape == (2, 5, 9, 2, 5)
    assert space.gather("delta").shape == (2, 5, 9, 2, 5)
    assert space.gather_state("end").shape == (2, 9, 2, 5)


# --- The check of the interpreted mode.


@pytest.mark.sim
@interpreted
@pytest.mark.parametrize("kind", ["dense", "tokens"])
@pytest.mark.parametrize("cell", ["tanh", "gru"])
@pytest.mark.parametrize("loss", ["softmax", "square"])
def test_no_kernel_of_several_shards_and_replicas_looks_beyond_an_array(cell, kind, loss):
    choices = {"loss": loss, "kind": kind, "T": 3, "B": 9, "N": 2, "H": 3, "dtype": "float64"}
    net, theta, batch, state, _ = make_replicas(cell, R=2, **choices)
    direction = np.ones_like(theta)
    nf.gradient(net, theta, batch, state=state)
    for how in ({"clip_example": 1.0}, {"clip_microbatch": (3, 1.0)}, {"recompute_every": 1}):
        nf.gradient(net, theta, batch, **how)
    for site in ("preactivation", "state"):
        nf.gradient(net, theta, batch, clip_hidden=nf.HiddenClip(0.1, site=site))
    for derivative in ("immediate", "detached", "exact"):
        nf.gradient(net, theta, batch, flow=nf.Flow("norm", 1.0, derivative=derivative))
    nf.gradient(net, theta, batch, flow=nf.Flow("norm_stabilizer", 1.0))
    nf.trace(net, theta, batch)
    nf.hvp(net, theta, batch, direction)
    nf.jvp(net, theta, batch.inputs, theta_dot=direction, state_dot=state)
    nf.vjp(net, theta, batch.inputs, d_state=state)
    upper = nf.Network(cell, 3, 2, net.n_out, loss, "float64")
    stack = nf.Stack([net, upper])
    theta = nf.init(stack, "glorot", rng=0, replicas=2)
    for how in ({}, {"clip_example": 1.0}, {"clip_microbatch": (3, 1.0)}):
        nf.gradient(stack, theta, batch, **how)
    held = nf.Recipe(lr=0.1, max_updates=1, trainable={"w_rec": False}, clip_microbatch=(3, 1.0))
    nf.train(stack, theta, lambda update: batch, held)


@pytest.mark.sim
@interpreted
@pytest.mark.parametrize("name", ["pre", "states", "weights", "sums", "p_rec", "d_rec", "theta"])
def test_whoever_looks_beyond_half_of_an_array_is_refused_by_its_name(name, monkeypatch):
    case = make_case("tanh", "softmax", "tokens", "all", T=2, B=9, H=2, dtype="float64")
    bounds = Workspace.bounds

    def halved(space):
        return {
            (at, field): [(first, (first + end) // 2 if field == name else end) for first, end in pairs]
            for (at, field), pairs in bounds(space).items()
        }

    nf.gradient(case.net, case.theta, case.batch)
    monkeypatch.setattr(Workspace, "bounds", halved)
    # The last three are given to the product, or read row by row, by their addresses.
    by_address = name in ("p_rec", "d_rec", "theta")
    with pytest.raises(IndexError, match="no array in particular" if by_address else f"a view of {name} "):
        nf.gradient(case.net, case.theta, case.batch)
    assert not memory._WATCHED


@pytest.mark.sim
@interpreted
def test_a_step_that_is_not_on_the_tape_is_refused_by_name():
    space = Workspace(nf.Network("tanh", 2, 3, 2), Shape(1, 4, 9, tokens=True))
    set_program(space, "predict")
    with memory.watched(space.bounds()):
        shard = views.shards(space.dtype)(space.shards.ctypes.data)
        assert views.at(shard, "pre", 3).shape == (space.rows[0], 1, int(space.shards["width"][0]))
        for t in (4, -1):
            with pytest.raises(IndexError, match="a view of pre"):
                views.at(shard, "pre", t)
