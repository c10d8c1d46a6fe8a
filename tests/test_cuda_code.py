"""Claims about the machine code of grids, compiled without a GPU; and about backend "cuda" where there is none."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from cases import CLIPS, STATEFUL_CLIPS, make_case

import nbflow as nf
from nbflow._compile import JIT

ARCHITECTURE = (9, 0)
DOUBLE = re.compile(r"\S*\.f64\S*")
APPROXIMATE = re.compile(r"\S*\.approx\S*")
LOCAL = re.compile(r"\b(?:ld|st)\.local\S*")


# ------------------------------------------------------------------------------------------------------ without a GPU


@pytest.mark.sim
@pytest.mark.parametrize(
    "call",
    [
        lambda case: nf.gradient(case.net, case.theta, case.batch, backend="cuda"),
        lambda case: nf.trace(case.net, case.theta, case.batch, backend="cuda"),
        lambda case: nf.predict(case.net, case.theta, case.batch.inputs, backend="cuda"),
        lambda case: nf.clip(case.net, case.theta, nf.Clip("norm", 1.0), backend="cuda"),
        lambda case: nf.train(case.net, case.theta, lambda update: case.batch, nf.Recipe(), backend="cuda"),
    ],
    ids=["gradient", "trace", "predict", "clip", "train"],
)
@pytest.mark.parametrize("numba_cuda", ["there", "missing"])
def test_no_gpu_is_one_clear_error_at_the_call(call, numba_cuda, monkeypatch):
    from nbflow.cuda import device

    class NoGpu:
        def is_available(self):
            return False

    monkeypatch.setattr(device, "_module", NoGpu() if numba_cuda == "there" else None)
    with pytest.raises(RuntimeError, match=r"^backend is 'cuda', and .* CUDA GPU.*backend='cpu'.*nbflow\[gpu"):
        call(make_case("tanh"))


def test_every_choice_is_known_to_be_there_or_refused():
    """A new one must be thought of: what the backend does not know it would leave out in silence."""
    there = {"flow", "state", "clip_hidden", "clip_example", "clip_microbatch", "h_detach", "lengths"}
    refused = {"recompute_every", "wrt", "noise"}
    older = {"checkpoint_every"}  # of the first of these
    choices = {p.name for p in inspect.signature(nf.gradient).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert choices == there | refused | older | {"backend", "workspace"}
    of_a_loop = {"optimizer", "lr", "batch_size", "lengths", "clip", "max_updates", "record_every", "settings",
                 "evaluate_every", "evaluate_size", "solved_below", "stop_when_solved", "carry",
                 "trainable", "project"}  # fmt: skip
    fields = {field.name for field in dataclasses.fields(nf.Recipe)}
    assert fields == of_a_loop | (there - {"state", "lengths"}) | (refused - {"recompute_every", "wrt"})


# ------------------------------------------------------------------------------------------------------ the code itself


def grids(dtype):
    """Yield name, grid and argument types of every grid, in the variants that the smaller networks use."""
    from numba import from_dtype, types

    from nbflow._load import load
    from nbflow.cpu.derive import second_order
    from nbflow.cuda import (
        backward,
        clip,
        flow,
        forward,
        h_detach,
        held,
        loss,
        replica,
        sample,
        second,
        state_penalty,
        stateful,
        tangent,
        threshold,
        update,
        weights,
        workspace,
    )
    from nbflow.records import Penalty, StatePenalty

    real, n, flag = from_dtype(np.dtype(dtype)), types.int64, types.boolean
    job, numbers, integers = types.int64[::1], real[::1], types.int32[::1]
    tables, all_three = (job, numbers), (job, numbers, integers)
    yield "lengths", forward.build_lengths(), (*all_three, n)
    yield "transpose", forward.build_transpose(), tables
    for name in nf.names("cells"):
        for hidden in (50, 200):
            cut = workspace.blocks_for(nf.Network(name, 1, hidden, 1, "square", dtype.__name__))
            bound = load("cells", name), dtype, cut.rows, cut.resident
            yield f"forward {name} {hidden}", forward.build_forward(*bound), all_three
            yield f"backward {name} {hidden}", backward.build_backward(*bound), all_three
            if hidden == 50 or name in ("gru", "lstm"):
                yield f"tangent {name} {hidden}", tangent.build_tangent(*bound, True), (*all_three, flag)
                yield f"second {name} {hidden}", second.build_second(*bound, True), all_three
        if name in ("gru", "lstm"):
            yield f"tangent detached {name}", tangent.build_tangent(*bound, False), (*all_three, flag)
            yield f"second detached {name}", second.build_second(*bound, False), all_three
        for clip_by in ((1, False), (2, True)):
            yield f"backward {name} clip {clip_by}", backward.build_backward(*bound, *clip_by), all_three
        if bound[0].carries:
            yield f"backward {name} detaching", backward.build_backward(*bound, 0, False, True), all_three
    for name in nf.names("flows"):
        if isinstance(load("flows", name), StatePenalty):
            yield f"states {name}", state_penalty.build_state_penalties(load("flows", name), dtype), (*all_three, n)
    yield "state norms", state_penalty.build_state_norms(dtype), (*all_three, n)
    # A cell of a step alone, and a loss without `slope_jvp`: by complex steps.
    bare = dict.fromkeys(("step_vjp", "step_jvp", "step_vjp_jvp"))
    derived = second_order(dataclasses.replace(load("cells", "mgu"), **bare)), dtype, 4, True
    yield "derived backward", backward.build_backward(*derived), all_three
    yield "derived tangent", tangent.build_tangent(*derived, True), (*all_three, flag)
    yield "derived second", second.build_second(*derived, True), all_three
    bent = dataclasses.replace(load("losses", "softmax"), share=None, slope_jvp=None)
    yield "derived slopes", tangent.build_slopes_dot(bent, dtype), (*all_three, n)
    yield "backward with states", backward.build_backward(*bound, 0, False, False, True), all_three
    yield "detach", h_detach.build_detach(), (*all_three, n, n, n)
    yield "predictions", loss.build_predictions(), (*tables, n)
    for name in nf.names("losses"):
        yield f"loss {name}", loss.build_losses(load("losses", name), dtype), (*all_three, n)
        yield f"slopes of {name}", tangent.build_slopes_dot(load("losses", name), dtype), (*all_three, n)
    yield "norms", flow.build_norms(dtype), (*all_three, n)
    for name in nf.names("flows"):
        if isinstance(load("flows", name), Penalty):
            yield f"penalty {name}", flow.build_penalties(load("flows", name), dtype), (*tables, n, real)
            yield f"penalty alone {name}", flow.build_penalties(load("flows", name), dtype, False), (*tables, n, real)
    yield "weights", weights.build_weights(dtype), (*all_three, n, n)
    yield "group norms", replica.build_group_norms(dtype), (*tables, n)
    yield "report", replica.build_report(dtype), (*all_three, n, flag, flag, n, n)
    yield "combine", replica.build_combine(dtype), (*tables, n, flag, flag, flag)
    yield "combine moving", replica.build_combine_moving(dtype), (*tables, n)
    look_before, look_after = clip.build_look(dtype)
    yield "look before", look_before, (*tables, n)
    yield "look after", look_after, (*tables, n, n)
    for name in CLIPS:
        rule = load("clips", name)
        yield f"rule {name}", clip.build_rule(rule.clip, rule.over, rule.relative, dtype), (*all_three, n, n)
    yield "hold", held.build_hold(dtype), tables
    for name in STATEFUL_CLIPS:
        rule = load("clips", name)
        of, sizes = len(rule.slots), (len(rule.slots), len(rule.settings))
        yield f"rule measured {name}", stateful.build_measured(rule.measured, of, dtype), tables
        yield f"rule {name}", stateful.build_stateful_rule(rule.clip, rule.over, *sizes, dtype), (*all_three, n, n)
        yield f"settle {name}", stateful.build_settle(of), all_three
    yield "joint", stateful.build_joint(dtype), tables
    for sized in (False, True):
        yield f"mend {sized}", clip.build_mend(True, True, True, sized, dtype), (*all_three, n, n, n)
    for name in nf.names("thresholds"):
        found = load("thresholds", name)
        kernel = threshold.build_follow(found.value, found.learn, found.learns_first, len(found.settings), dtype)
        yield f"follow {name}", kernel, (*tables, types.float64[::1], n, n)
    for name in nf.names("optimizers"):
        found = load("optimizers", name)
        kernel = update.build_update(found.update, len(found.slots), len(found.settings), True, dtype)
        yield f"update {name}", kernel, all_three
    yield "count", update.build_count(), all_three
    yield "keep", update.build_keep(), (*tables, n)
    for name in nf.names("tasks"):
        yield f"sample {name}", sample.build_sample(load("tasks", name), dtype), (*all_three, n, n, n, n, n)
        yield f"wrong {name}", loss.build_wrong(load("tasks", name).classes), (*all_three, n, types.float64)


def spills_of(ptx):
    """Return the bytes that the assembler spills from registers, or 0 where there is no assembler."""
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        return 0
    done = assembled(ptxas, ptx)
    older = re.search(r"Unsupported \.version .*current version is '([\d.]+)'", done.stderr)
    if older:  # an assembler older than the compiler, which says a newer version than its code needs
        done = assembled(ptxas, re.sub(r"^\.version .*$", f".version {older[1]}", ptx, count=1, flags=re.MULTILINE))
    done.check_returncode()
    return sum(int(found) for found in re.findall(r"(\d+) bytes spill stores", done.stderr))


def assembled(ptxas, ptx):
    """Return the process of an assembler that has read this code."""
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [ptxas, f"-arch=sm_{ARCHITECTURE[0]}{ARCHITECTURE[1]}", "-v", file.name, "-o", "/dev/null"]
        return subprocess.run(command, capture_output=True, text=True, check=False)


def inspect_all():
    """Return what stands in the PTX of every float32 grid; in a process of its own, which believes in a GPU."""
    from numba import cuda
    from numba.cuda import dispatcher

    class Gpu:
        compute_capability = ARCHITECTURE

    dispatcher.get_current_device = lambda: Gpu
    found = {}
    for name, kernel, types in grids(np.float32):
        ptx, _ = cuda.compile(kernel.py_func, types, device=False, abi="numba", cc=ARCHITECTURE, output="ptx")
        found[name] = {
            "double": sorted(set(DOUBLE.findall(ptx))),
            "approximate": sorted(set(APPROXIMATE.findall(ptx))),
            "local": sorted(set(LOCAL.findall(ptx))),
            "spills": spills_of(ptx),
        }
    return found


@pytest.fixture(scope="module")
def code():
    """Give what `inspect_all` finds."""
    if not JIT:
        pytest.skip("nothing is compiled")
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed")
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if re.search(r"NVVM|NVRTC|nvvm|nvrtc|libdevice", done.stderr):
            pytest.skip(f"PTX cannot be compiled here: {last}")
        pytest.fail(done.stderr)
    return json.loads(done.stdout)


def test_float32_grids_contain_no_arithmetic_of_float64(code):
    """But where the CPU has some: the mean of the addition task, random steps, and norms beyond float32.

    And in complex steps.
    """
    there = "sample addition", "sample multiplication", "mend", "combine"
    families = "rule", "wrong", "follow", "derived"
    for name, found in code.items():
        if name not in there and not name.startswith(families) and "clip (2, True)" not in name:
            assert not found["double"], name
    assert not code["rule value"]["double"]
    assert code["sample addition"]["double"]  # the test can see it


def test_grids_do_not_approximate(code):
    """But inside the library's own power, hypot, and float64 quotient and exponential, exact to an ulp or two."""
    for name, found in code.items():
        if name not in ("update adam", "mend", "follow zscore", "rule spam") and not name.startswith("derived"):
            assert not found["approximate"], name


def test_time_loops_keep_their_sums_in_registers(code):
    for name, found in code.items():
        assert found["spills"] == 0, name
        if name.startswith(("forward", "backward", "tangent", "second", "weights")):
            assert not found["local"], name


if __name__ == "__main__":
    print(json.dumps(inspect_all()))
