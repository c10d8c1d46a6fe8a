"""First weights: the deviations, radii and connections that the recipes promise."""

import dataclasses

import numpy as np
import pytest
from tolerance import by_chance, near

import nbflow as nf

pytestmark = pytest.mark.sim

INITS = nf.names("inits")
CELLS = nf.names("cells")
# Standard errors of a sample deviation that are allowed; the numbers are fixed, so this never fails by chance.
ERRORS = 4.0


def draw(scheme, cell="tanh", N=40, H=50, M=30, dtype="float64", rng=0, **options):
    """Return the parameters of one network by name."""
    net = nf.Network(cell, N, H, M, loss="square", dtype=dtype)
    return nf.unpack(net, nf.init(net, scheme, rng=rng, **options))


def radius(matrix):
    return np.abs(np.linalg.eigvals(matrix)).max()


def assert_normal(block, deviation):
    """Check mean and deviation of independent normals."""
    assert abs(block.mean()) < ERRORS * deviation / np.sqrt(block.size)
    assert abs(block.std() / deviation - 1) < ERRORS / np.sqrt(2 * block.size)


def assert_uniform(block, bound):
    assert np.abs(block).max() <= bound
    assert np.abs(block).max() > 0.98 * bound
    assert abs(block.mean()) < ERRORS * bound / np.sqrt(3 * block.size)
    assert abs(block.std() / (bound / np.sqrt(3)) - 1) < ERRORS / np.sqrt(block.size)


def assert_orthogonal(matrix, dtype="float64"):
    far = np.abs(matrix.astype(np.float64) @ matrix.T.astype(np.float64) - np.eye(len(matrix))).max()
    assert far < 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("scheme", INITS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_scheme_fills_every_cell_with_finite_numbers_of_its_dtype(scheme, cell, dtype):
    net = nf.Network(cell, 3, 5, 2, dtype=dtype)
    theta = nf.init(net, scheme, rng=0)
    assert theta.shape == (net.size,)
    assert theta.dtype == dtype
    assert theta.flags.c_contiguous
    assert theta.flags.writeable
    assert np.isfinite(theta).all()
    params = nf.unpack(net, theta)
    assert (params.w_in != 0).any()
    assert (params.w_rec != 0).any()
    assert (params.w_out != 0).any()


@pytest.mark.parametrize("scheme", INITS)
@pytest.mark.parametrize("cell", CELLS)
def test_biases_are_zero_except_for_the_forget_gate_of_glorot(scheme, cell):
    net = nf.Network(cell, 3, 5, 2)
    params = nf.unpack(net, nf.init(net, scheme, rng=0))
    gates = net.cell_object.gates
    for g, gate in enumerate(gates):
        wanted = 1.0 if scheme == "glorot" and gate == "f" else 0.0
        assert (params.bias[g] == wanted).all()
    assert (params.bias_rec == 0).all()
    assert (params.b_out == 0).all()


def test_glorot_gives_the_forget_gate_of_any_cell_a_bias_of_one():
    four = dataclasses.replace(nf.Network("lstm", 1, 1, 1).cell_object, gates=("w", "f", "y", "z"), ranges=())
    assert (draw("glorot", four, H=4).bias == [[0] * 4, [1] * 4, [0] * 4, [0] * 4]).all()


@pytest.mark.parametrize(("scheme", "deviation"), [("sigmoid", 0.01), ("basic_tanh", 0.1)])
def test_normal_schemes_have_their_standard_deviation_everywhere(scheme, deviation):
    params = draw(scheme)
    for block in (params.w_in, params.w_rec, params.w_out):
        assert_normal(block, deviation)


def test_smart_tanh_has_small_normal_inputs_and_outputs():
    params = draw("smart_tanh")
    assert_normal(params.w_in, 0.01)
    assert_normal(params.w_out, 0.01)


@pytest.mark.parametrize("H", [1, 2, 14, 15, 16, 50, 100])
@pytest.mark.parametrize(("connections", "axis"), [("incoming", 0), ("outgoing", 1)])
def test_smart_tanh_gives_each_unit_fifteen_connections_and_the_matrix_its_radius(connections, axis, H):
    w_rec = draw("smart_tanh", H=H, connections=connections).w_rec[:, 0]
    # a = h @ w_rec: what comes in to a unit is its column.
    assert ((w_rec != 0).sum(axis=axis) == min(15, H)).all()
    assert radius(w_rec) == near(0.95, "float64", 1, H * H, 100)
    if H > 16:
        assert not ((w_rec != 0).sum(axis=1 - axis) == 15).all()


def test_smart_tanh_is_incoming_unless_told_otherwise():
    np.testing.assert_array_equal(draw("smart_tanh").w_rec, draw("smart_tanh", connections="incoming").w_rec)


def test_smart_tanh_keeps_its_radius_in_float32():
    w_rec = draw("smart_tanh", dtype="float32").w_rec[:, 0].astype(np.float64)
    assert radius(w_rec) == near(0.95, "float32", 1, w_rec.size)


def test_smart_tanh_draws_normal_entries_and_scales_them_all_alike():
    w_rec = draw("smart_tanh", H=150, rng=1).w_rec[:, 0]
    entries = w_rec[w_rec != 0]
    # The fourth moment of normals is 3 times the square of the second, that of uniforms 1.8 times.
    # Over draws it scatters by 24**0.5 / n**0.5.
    kurtosis = np.mean(entries**4) / np.mean(entries**2) ** 2
    assert kurtosis == pytest.approx(3.0, abs=by_chance(entries.size, 24**0.5))
    assert abs(entries.mean()) < ERRORS * entries.std() / np.sqrt(entries.size)


@pytest.mark.parametrize("H", [1, 2, 3, 50])
@pytest.mark.parametrize("scheme", ["orthogonal", "glorot"])
def test_orthogonal_matrices_are_orthogonal_and_both_signs_of_their_determinant_occur(scheme, H):
    signs = set()
    for rng in range(12):
        w_rec = draw(scheme, H=H, rng=rng).w_rec[:, 0]
        assert_orthogonal(w_rec)
        signs.add(np.sign(np.linalg.det(w_rec)))
    assert signs == {-1.0, 1.0}


def test_the_gates_of_a_cell_have_orthogonal_matrices_of_their_own():
    three = dataclasses.replace(nf.Network("gru", 1, 1, 1).cell_object, gates=("x", "y", "z"), ranges=())
    w_rec = draw("orthogonal", three).w_rec
    for g in range(3):
        assert_orthogonal(w_rec[:, g])
        assert np.abs(w_rec[:, g] - w_rec[:, (g + 1) % 3]).max() > 0.1


@pytest.mark.parametrize("scheme", ["orthogonal", "glorot"])
def test_glorot_uniform_has_the_bound_of_its_fans(scheme):
    params = draw(scheme, N=40, H=50, M=30)
    assert_uniform(params.w_in, np.sqrt(6 / (40 + 50)))
    assert_uniform(params.w_out, np.sqrt(6 / (50 + 30)))


@pytest.mark.parametrize("cell", CELLS)
def test_identity_is_the_identity_for_every_gate(cell):
    params = draw("identity", cell, H=7)
    for g in range(params.w_rec.shape[1]):
        np.testing.assert_array_equal(params.w_rec[:, g], np.eye(7))
    big = draw("identity")
    assert_normal(big.w_in, 0.001)
    assert_normal(big.w_out, 0.001)


@pytest.mark.parametrize("scheme", INITS)
def test_a_replica_is_the_same_alone_and_among_any_number(scheme):
    net = nf.Network("tanh", 3, 20, 2)
    alone = nf.init(net, scheme, rng=7)
    for replicas in (1, 2, 5):
        many = nf.init(net, scheme, rng=7, replicas=replicas)
        assert many.shape == (replicas, net.size)
        np.testing.assert_array_equal(many[0], alone)
        np.testing.assert_array_equal(many, nf.init(net, scheme, rng=7, replicas=5)[:replicas])
    assert len({row.tobytes() for row in nf.init(net, scheme, rng=7, replicas=5)}) == 5


@pytest.mark.parametrize("scheme", INITS)
def test_seeds_and_generators_decide_what_is_drawn(scheme):
    net = nf.Network("tanh", 3, 20, 2)
    np.testing.assert_array_equal(nf.init(net, scheme, rng=3), nf.init(net, scheme, rng=np.random.default_rng(3)))
    assert (nf.init(net, scheme, rng=3) != nf.init(net, scheme, rng=4)).any()
    assert (nf.init(net, scheme) != nf.init(net, scheme)).any()
    generator = np.random.default_rng(3)
    assert (nf.init(net, scheme, rng=generator) != nf.init(net, scheme, rng=generator)).any()


def test_a_recipe_of_ones_own_is_accepted():
    net = nf.Network("tanh", 3, 4, 2)

    def ones(net, params, rng, value=1.0):
        for block in params:
            block[...] = value

    assert (nf.init(net, ones) == 1).all()
    assert (nf.init(net, ones, replicas=2, value=3.0) == 3).all()


def test_drawing_leaves_numpys_global_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for scheme in INITS:
        nf.init(nf.Network("tanh", 3, 4, 2), scheme, rng=0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
