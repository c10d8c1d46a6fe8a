"""The machine code of the kernels: no wider arithmetic than asked, in vectors, and blind to neither NaN nor Inf."""

import re

import numba
import numpy as np
import pytest
from cases import CELLS, FLOWS, LOSSES, REGULARIZERS, STATE_FLOWS, make_case
from targets import fast, registers

import nbflow as nf
from nbflow import _compile, _machine_code
from nbflow._compile import JIT
from nbflow._load import load
from nbflow.cpu import backward, flow, forward, loss, program, replica, run, second, state_penalty, tangent
from nbflow.cpu.derive import second_order
from nbflow.cpu.product import build_product, lanes

DTYPES = (np.float32, np.float64)
compiled = pytest.mark.skipif(not JIT, reason="nothing is compiled")
vectors = pytest.mark.skipif(not fast(), reason="what numba compiles for has neither AVX2 nor AVX-512")

# Everything that a program runs, and what every program calls beside its own phases.
PHASES = {build for phases in program.PROGRAMS.values() for build in phases}
PHASES |= {build_product, replica.build_pack, replica.build_combine, run.build_phases}
# The arithmetic of doubles, and the calls that take or return one.
ARITHMETIC = re.compile(
    r"\b(?:fadd|fsub|fmul|fdiv|frem|fneg|fcmp|fptosi|fptoui)\b[^\n]*\bdouble\b|\bcall\b[^\n]*\bdouble\b|\bfpext\b[^\n]*double"
)
# The kernels with a clip inside, whose rules (`nbflow.cpu.rules.shrunk`) take a factor in float64.
CLIPPING = {
    "build_backward", "build_recomputing", "build_recomputing_ends", "build_gradient", "build_groups",
}  # fmt: skip
QUOTIENT, NOTHING = re.compile("fpext|fmul|fdiv"), re.compile(r"(?!)")
# How LLVM asks whether lines overlap: by their ends, or where it is simple by how far apart they begin.
OVERLAP = re.compile(r"vector\.memcheck|found\.conflict|diff\.check")

BUILT = {}


def compiled_anew(build, *bound):
    """Return a kernel compiled here and now: numba cannot show the code of one that comes from the disk."""
    if (build, bound) not in BUILT:
        keep = _compile._keep_on_disk
        _compile._keep_on_disk = lambda *arguments: None
        try:
            BUILT[build, bound] = build.__wrapped__(*bound)
        finally:
            _compile._keep_on_disk = keep
    return BUILT[build, bound]


def kernels_of(dtype):
    """Yield the name and the kernel of everything that is called by its address, for a dtype."""
    for build in sorted(PHASES, key=lambda build: build.__name__):
        yield build.__name__, compiled_anew(build, dtype)
    for name in CELLS:
        yield f"step of {name}", compiled_anew(forward.build_step, load("cells", name), dtype)
        yield f"step_vjp of {name}", compiled_anew(backward.build_step_vjp, load("cells", name), dtype)
    for name in LOSSES:
        yield f"loss of {name}", compiled_anew(loss.build_loss_rows, load("losses", name), dtype)
    for name in FLOWS:
        yield f"penalty of {name}", compiled_anew(flow.build_penalty, load("flows", name), dtype)
    for name in STATE_FLOWS:
        yield f"penalty of {name}", compiled_anew(state_penalty.build_state_penalty, load("flows", name), dtype)


def pointwise(cell, dtype):
    """Yield the two pointwise passes of a cell."""
    yield compiled_anew(forward.build_step, load("cells", cell), dtype)
    yield compiled_anew(backward.build_step_vjp, load("cells", cell), dtype)


def body_of(kernel):
    """Return the assembly of the function itself, without the wrapper that would report an exception to Python."""
    found, keeps = [], False
    for line in kernel.assembly.splitlines():
        if line.startswith("\t.type"):
            keeps = "@function" in line and line.split()[1].startswith("_ZN6nbflow")
        if keeps:
            found.append(line)
    assert len(found) > 10
    return "\n".join(found)


@compiled
def test_kernels_of_float32_contain_no_arithmetic_of_float64():
    """But for what a clip inside a gradient multiplies by where that leaves the range of float32: no sums."""
    for name, kernel in kernels_of(np.float32):
        assert "define" in kernel.llvm, name
        found = set(ARITHMETIC.findall(kernel.llvm))
        allowed = QUOTIENT if name in CLIPPING else NOTHING
        assert not {line for line in found if not allowed.match(line)}, name


@compiled
def test_no_kernel_lets_another_call_its_parts():
    for name, kernel in kernels_of(np.float32):
        exported = re.findall(r"^define (?!internal |private )[^@]*@\"?([^\"(]*)", kernel.llvm, re.MULTILINE)
        assert len(exported) == 2, name
        assert {f"cfunc.{exported[0]}", f"cfunc.{exported[1]}"} & set(exported), name


@compiled
def test_every_function_of_nbflow_asks_for_vectors_of_the_full_width():
    """LLVM's tuning for most of Intel's processors would halve them, in a part as in the kernel that calls it."""
    wide = f" {_machine_code.FULL_WIDTH} "
    for name, kernel in kernels_of(np.float32):
        groups = dict(re.findall(r"^attributes (#\d+) = \{(.*)\}$", kernel.llvm, re.MULTILINE))
        functions = re.findall(r"^define [^@]*@\"?(\S*nbflow[^\s(\"]*).*?(#\d+)?[^#]*\{$", kernel.llvm, re.MULTILINE)
        assert functions, name
        for function, group in functions:
            assert wide in groups.get(group, ""), f"{name}: {function}"


@compiled
def test_a_part_asks_for_vectors_of_the_full_width_before_it_is_put_into_a_kernel():
    for decorate in (_compile.part, _compile.exact_part):

        @decorate
        def add(a, b):
            for i in range(a.size):
                a[i] += b[i]

        add.compile((numba.float64[::1], numba.float64[::1]))
        [found] = add.overloads.values()
        code = found.library.get_llvm_str()
        assert _machine_code.FULL_WIDTH in code
        assert registers() is None or f"<{lanes(np.float64)} x double>" in code


@compiled
def test_the_search_for_float64_arithmetic_finds_it_where_it_is():
    for kernel in pointwise("tanh", np.float64):
        assert ARITHMETIC.search(kernel.llvm)


@compiled
@vectors
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_pointwise_passes_of_a_cell_run_in_whole_vectors(cell, dtype):
    register, suffix = registers(), "ps" if dtype is np.float32 else "pd"
    arithmetic = re.compile(
        rf"\bv\w*(?:add|sub|mul|div|max|min|fn?m\w+|and|cmp\w*|blendm)\w*{suffix}\b[^\n]*{register}"
    )
    moves = re.compile(rf"\bvmov[ua]p[sd]\b[^\n]*{register}")
    for kernel in pointwise(cell, dtype):
        text = body_of(kernel)
        assert moves.search(text)
        # The linear cell has nothing to compute: the sum of a_in and a_rec is taken by the product.
        assert arithmetic.search(text) or cell == "linear"


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_pointwise_passes_of_a_cell_never_ask_whether_lines_overlap(cell, dtype):
    """An answer too cautious would send them through a loop without vectors."""
    own, builds = load("cells", cell), {"step_jvp": tangent.build_step_jvp, "step_vjp_jvp": second.build_step_vjp_jvp}
    # What a cell leaves out is found by complex steps, one number at a time.
    written = [compiled_anew(build, second_order(own), dtype) for name, build in builds.items() if getattr(own, name)]
    for kernel in (*pointwise(cell, dtype), *written):
        assert "vector.body" in kernel.llvm
        assert not OVERLAP.search(kernel.llvm)


@compiled
def test_the_search_for_questions_about_overlap_finds_one_where_it_is():
    one = np.float32(1)

    @numba.njit("void(float32[::1], float32[::1])")
    def copy(numbers, place):
        for i in range(place.size):
            place[i] = numbers[i] + one

    [code] = copy.inspect_llvm().values()
    assert OVERLAP.search(code)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_pointwise_passes_of_a_cell_call_nothing(cell, dtype):
    for kernel in pointwise(cell, dtype):
        assert not re.search(r"^\s+(?:callq?|blr?)\s", body_of(kernel), re.MULTILINE)


@compiled
@vectors
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_product_multiplies_and_adds_whole_vectors_at_once(dtype):
    register, suffix = registers(), "ps" if dtype is np.float32 else "pd"
    text = body_of(compiled_anew(build_product, dtype))
    assert re.search(rf"\bvfmadd\d+{suffix}\b[^\n]*{register}", text)
    # Not one by one anywhere.
    assert not re.search(rf"\bv(?:fmadd\d+|mul|add)s{suffix[1]}\b", text)


@compiled
def test_no_kernel_allocates():
    for name, kernel in kernels_of(np.float32):
        found = re.search(r"NRT_Allocate\w*|NRT_MemInfo_\w+|\bmalloc\b", body_of(kernel))
        assert not found, f"{name}: {found and found[0]}"


# --- NaN and Inf in a vectorised loop: H is more than a vector, and no multiple of one.

H = 37
POISONS = [np.nan, np.inf, -np.inf]


def poisoned(cell, dtype, block, bad, at=-1):
    """Return the gradient of a network with one bad parameter, and the same one without it."""
    case = make_case(cell, "square", "dense", "all", T=3, B=9, N=2, H=H, M=2, dtype=dtype)
    theta = case.theta.copy()
    getattr(nf.unpack(case.net, theta), block).reshape(-1)[at] = bad
    return nf.gradient(case.net, theta, case.batch), case


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("block", ["w_in", "w_rec", "bias", "w_out", "b_out"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_in_any_parameter_is_a_nan_in_the_loss(cell, block, dtype):
    for at in (0, -1):
        out, _ = poisoned(cell, dtype, block, np.nan, at)
        assert np.isnan(out.loss)
        assert np.isnan(out.d_theta).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", POISONS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_state_that_is_not_finite_is_seen_at_the_unit_where_it_arose(cell, bad, dtype):
    # One unit alone gets NaN or Inf at step 1; what the definition makes of it is what the loop must make of it.
    case = make_case(cell, "square", "dense", "all", T=1, B=9, N=2, H=H, M=2, dtype=dtype)
    theta = case.theta.copy()
    unit = 20
    nf.unpack(case.net, theta).bias[:, unit] = bad
    states = nf.trace(case.net, theta, case.batch).states[1, :, 0]
    clean = nf.trace(case.net, case.theta, case.batch).states[1, :, 0]
    np.testing.assert_array_equal(np.delete(states, unit, axis=1), np.delete(clean, unit, axis=1))
    wanted = {
        "linear": bad,
        "relu": bad if bad != -np.inf else 0.0,
        "tanh": np.tanh(bad),
        "sigmoid": np.nan if np.isnan(bad) else float(bad > 0),
    }
    if cell in wanted:
        np.testing.assert_array_equal(states[:, unit], wanted[cell])
    elif np.isnan(bad):
        assert np.isnan(states[:, unit]).all()


@pytest.mark.parametrize("loss_name", LOSSES)
@pytest.mark.parametrize("bad", POISONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_output_that_is_not_finite_is_a_loss_that_is_not_finite(loss_name, bad, dtype):
    case = make_case("linear", loss_name, "dense", "all", T=2, B=9, N=2, H=H, M=19, dtype=dtype)
    for at in (0, 18):
        theta = case.theta.copy()
        nf.unpack(case.net, theta).b_out[at] = bad
        out = nf.gradient(case.net, theta, case.batch)
        # An output of -Inf is a class of probability 0: right, unless it is the target.
        honest = loss_name == "softmax" and bad == -np.inf and not (case.batch.targets == at).any()
        assert np.isfinite(out.loss) == honest, out.loss


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("penalty", FLOWS + STATE_FLOWS + REGULARIZERS)
def test_a_nan_reaches_omega(penalty, dtype):
    case = make_case("tanh", "square", "dense", "all", T=3, B=9, N=2, H=H, M=2, dtype=dtype)
    theta = case.theta.copy()
    nf.unpack(case.net, theta).w_rec[3, 0, 4] = np.nan
    assert np.isnan(nf.gradient(case.net, theta, case.batch, flow=nf.Flow(penalty, 1.0)).omega)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_in_one_replica_leaves_the_others_as_they_were(dtype):
    case = make_case("tanh", "square", "dense", "all", T=3, B=9, N=2, H=H, M=2, dtype=dtype)
    theta = np.stack([case.theta] * 3)
    theta[1] = np.nan
    batch = nf.Batch(*(np.broadcast_to(a, (3, *a.shape)) for a in case.batch))
    out, alone = nf.gradient(case.net, theta, batch), nf.gradient(case.net, case.theta, case.batch)
    assert np.isnan(out.loss[1])
    for r in (0, 2):
        assert out.loss[r] == alone.loss
        np.testing.assert_array_equal(out.d_theta[r], alone.d_theta)
