"""Claims about subnormal numbers: gradients take them for 0, what looks at them sees them, no other code notices."""

import numpy as np
import pytest
from numba import njit
from tolerance import near

import nbflow as nf
from nbflow._compile import JIT
from nbflow.cpu import subnormals

pytestmark = pytest.mark.skipif(not JIT or not subnormals.BITS, reason="there is no control word to set")
DTYPES = ("float32", "float64")


@njit
def product(x, y):
    return x * y


def half(x):
    return product(x, x.dtype.type(0.5))  # a plain 0.5 would make float64 of a float32


@njit
def flush():
    return subnormals.flush()


@njit
def restore(word):
    subnormals.restore(word)


@pytest.mark.parametrize("dtype", DTYPES)
def test_flush_makes_them_0_and_restore_brings_them_back(dtype):
    smallest = np.finfo(dtype).smallest_normal
    assert half(smallest) > 0
    word = flush()
    flushed = half(smallest)
    restore(word)
    assert flushed == 0 < half(smallest)


def halving(dtype, steps):
    """A linear network through which h, and the gradient on its way back, are halved at every step."""
    net = nf.Network("linear", 1, 4, 1, loss="square", dtype=dtype)
    theta = nf.init(net, "identity", rng=0)
    params = nf.unpack(net, theta)
    params.w_in[...] = params.w_out[...] = 1
    params.w_rec[...] *= 0.5
    weights = np.zeros((steps, 1), dtype)
    weights[-1] = 1
    inputs = np.zeros((steps, 1, 1), dtype)
    inputs[0] = inputs[-1] = 1
    return net, theta, nf.Batch(inputs, np.zeros((steps, 1, 1), dtype), weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_trace_sees_them_exactly_and_a_gradient_takes_them_for_0(dtype):
    steps = 140 if dtype == "float32" else 1060  # 2^-steps is subnormal, and so is what arrives at step 1
    net, theta, batch = halving(dtype, steps)
    tiny = np.finfo(dtype).smallest_normal
    seen = nf.trace(net, theta, batch)
    arrived = seen.delta[1, 0, 0, 0]
    assert 0 < arrived < tiny
    assert arrived == np.ldexp(seen.delta[-1, 0, 0, 0], 1 - steps)
    # Of w_in, only steps 1 and T have an input: the first one's part would be `arrived`, and vanishes beside the last.
    only_first = batch._replace(inputs=np.where(np.arange(steps)[:, None, None] == 0, batch.inputs, 0))
    assert not nf.unpack(net, nf.gradient(net, theta, only_first).d_theta).w_in.any()
    w_in = nf.unpack(net, nf.gradient(net, theta, batch).d_theta).w_in
    assert (w_in == seen.delta[-1, 0, 0, 0]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_leaves_the_callers_arithmetic_as_it_was(dtype):
    net, theta, batch = halving(dtype, 150)
    smallest = np.finfo(dtype).smallest_normal
    nf.gradient(net, theta, batch, flow=nf.Flow("norm", 1.0, derivative="exact"))
    assert half(smallest) > 0
    assert smallest / 2 > 0


def test_a_clip_measures_a_subnormal_gradient():
    net, theta, _ = halving("float32", 3)
    d_theta = np.full_like(theta, 1e-42)
    done = nf.clip(net, d_theta, nf.Clip("norm", 1e-43))
    assert done.norm == near(float(np.float32(1e-42)) * np.sqrt(theta.size), "float32")
    assert done.d_theta.any()
