"""Claims about numbers that users pass: what a check returns is what is used, so NumPy's scalars count as Python's.

`np.uint8(200) + 100` is 44: a number of a small dtype that reaches arithmetic is wrong in silence.
"""

from __future__ import annotations

import dataclasses
import inspect
import re

import numpy as np
import pytest

import nbflow as nf
from nbflow.data.sampler import Trivial
from nbflow.statistics import passages

TASK = nf.load_task("temporal_order")
MEMORY = nf.load_task("memorization")
NET = nf.Network("lstm", TASK.n_in, 3, TASK.n_out, dtype="float64")
THETA = nf.init(NET, "smart_tanh", rng=0)
BATCH = TASK.sample(seed=0, index=0, batch_size=4, length=10, dtype="float64")
BATCHES = [TASK.sample(seed=0, index=k, batch_size=4, length=10, dtype="float64") for k in range(6)]
TEXT = nf.data.Text(np.arange(700, dtype=np.int32) % 5, tuple("abcde"))
PIECES = [(np.random.default_rng(k).random((7, 3)) < 0.5).astype(np.uint8) for k in range(300)]
SOME = np.random.default_rng(0).normal(size=(2, 9))
TIMES = passages([3.0, None, 5.0, 8.0], 9)


def trained(**changes):
    how = {"lengths": 10, "batch_size": 4, "max_updates": 3, "record_every": 2, "evaluate_every": 0} | changes
    return nf.train(NET, THETA, TASK, nf.Recipe(**how))


def in_stages(**named):
    how = nf.Recipe(lengths=10, batch_size=4, max_updates=3, evaluate_every=0)
    return nf.train_stages(NET, THETA, TASK, [how, how], **named).runs


def stopped(*callbacks, **changes):
    how = {"lengths": 10, "batch_size": 4, "max_updates": 9, "evaluate_every": 1, "evaluate_size": 9} | changes
    return nf.train(NET, THETA, TASK, nf.Recipe(**how), callbacks=callbacks)


def trained_by(**named):
    how = nf.Recipe(lengths=10, batch_size=4, max_updates=2, evaluate_every=0)
    return nf.train(NET, THETA, TASK, how, **named)


def updated(**named):
    update = nf.updater(NET, THETA, TASK, nf.Recipe(lengths=10, batch_size=4), **named)
    update()
    return update.theta


def gradient(**named):
    return nf.gradient(NET, THETA, BATCH, **named)


def draws(task=TASK, **changes):
    return task.sample(**({"seed": 0, "index": 0, "batch_size": 2, "length": 10} | changes))


def bias(**changes):
    how = {"length": 10, "batch_size": 4, "count": 6, "rng": 0, "resamples": 20} | changes
    return nf.clipping_bias(NET, THETA, TASK, {"value": nf.Clip("value", 0.01)}, **how)


def experiment(**changes):
    one = nf.Experiment("temporal_order", nf.Recipe(lengths=10), **changes)
    return one.described, one.theta(3)


# What to call with each number that a public function or record takes; the number is one that small dtypes hold, and
# with which they compute wrongly where they can.
CASES = {
    "Clip.threshold": (0.25, lambda x: nf.clip(NET, BATCHES and gradient().d_theta, nf.Clip("norm", x))),
    "ExampleClip.threshold": (0.25, lambda x: bias_of(nf.ExampleClip(x))),
    "MicrobatchClip.size": (2, lambda x: bias_of(nf.MicrobatchClip(x, 0.25))),
    "MicrobatchClip.threshold": (0.25, lambda x: bias_of(nf.MicrobatchClip(2, x))),
    "HiddenClip.threshold": (0.25, lambda x: gradient(clip_hidden=nf.HiddenClip(x))),
    "HDetach.probability": (0.25, lambda x: gradient(h_detach=nf.HDetach(x))),
    "HDetach.seed": (100, lambda x: gradient(h_detach=nf.HDetach(0.5, seed=x))),
    "HDetach.index": (100, lambda x: gradient(h_detach=nf.HDetach(0.5, index=x))),
    "Noise.deviation": (0.25, lambda x: gradient(noise=nf.Noise(x))),
    "Noise.seed": (100, lambda x: gradient(noise=nf.Noise(0.5, seed=x))),
    "Noise.index": (100, lambda x: gradient(noise=nf.Noise(0.5, index=x))),
    "gradient.noise": (0.25, lambda x: gradient(noise=x)),
    "predict.noise": (0.25, lambda x: nf.predict(NET, THETA, BATCH.inputs, noise=x)),
    "trace.noise": (0.25, lambda x: nf.trace(NET, THETA, BATCH, noise=x)),
    "jvp.noise": (0.25, lambda x: nf.jvp(NET, THETA, BATCH.inputs, theta_dot=THETA, noise=x)),
    "vjp.noise": (0.25, lambda x: nf.vjp(NET, THETA, BATCH.inputs, d_outputs=np.ones((10, 4, 4)), noise=x)),
    "hvp.noise": (0.25, lambda x: nf.hvp(NET, THETA, BATCH, THETA, noise=x)),
    "evaluate.noise": (0.25, lambda x: evaluated(noise=x)),
    "Recipe.noise": (0.25, lambda x: trained(noise=x)),
    "Flow.alpha": (0.25, lambda x: gradient(flow=nf.Flow("norm", x))),
    "Flow.bound": (2.0**-10, lambda x: gradient(flow=nf.Flow("norm", 1.0, bound=x))),
    "Experiment.n_hidden": (100, lambda x: experiment(n_hidden=x)),
    "Experiment.theta.seed": (100, lambda x: nf.Experiment("addition", nf.Recipe(lengths=10)).theta(x)),
    "Network.n_in": (100, lambda x: nf.Network("lstm", x, 3, 4).shapes),
    "Network.n_hidden": (100, lambda x: (nf.Network("lstm", 3, x, 4).size, nf.Network("tanh", 3, x, 4).size)),
    "Network.n_out": (100, lambda x: nf.Network("lstm", 3, 4, x).size),
    "EarlyStopping.patience": (2, lambda x: stopped(nf.EarlyStopping(x))),
    "EarlyStopping.min_delta": (0.125, lambda x: stopped(nf.EarlyStopping(3, x))),
    "HalvingRate.lr": (0.25, lambda x: stopped(lr=nf.HalvingRate(x))),
    "HalvingRate.factor": (0.25, lambda x: stopped(lr=nf.HalvingRate(0.25, x))),
    "HalvingRate.patience": (2, lambda x: stopped(lr=nf.HalvingRate(0.25, patience=x))),
    "HalvingRate.min_delta": (0.125, lambda x: stopped(lr=nf.HalvingRate(0.25, min_delta=x))),
    "HalvingRate.least": (0.125, lambda x: stopped(lr=nf.HalvingRate(0.25, least=x))),
    "train_stages.max_updates": (5, lambda x: in_stages(max_updates=x)),
    "train_stages.seed": (100, lambda x: in_stages(seed=x)),
    "train_stages.replica_ids": (100, lambda x: in_stages(replica_ids=[x])),
    "train_stages.checkpoint_seconds": (0.25, lambda x: in_stages(checkpoint_seconds=x)),
    "Recipe.lr": (0.25, lambda x: trained(lr=x)),
    "Recipe.batch_size": (100, lambda x: trained(batch_size=x)),
    "Recipe.lengths": (100, lambda x: (trained(lengths=x, max_updates=1), trained(lengths=(10, x), max_updates=1))),
    "Recipe.clip_example": (0.25, lambda x: trained(clip_example=x)),
    "Recipe.clip_microbatch": (2, lambda x: trained(clip_microbatch=(x, 0.25))),
    "Recipe.max_updates": (100, lambda x: trained(max_updates=x, record_every=30)),
    "Recipe.record_every": (100, lambda x: trained(max_updates=101, record_every=x, batch_size=1)),
    "Recipe.evaluate_every": (100, lambda x: trained(max_updates=101, evaluate_every=x, evaluate_size=3)),
    "Recipe.evaluate_size": (100, lambda x: trained(evaluate_every=1, evaluate_size=x)),
    "Recipe.solved_below": (0.75, lambda x: trained(evaluate_every=1, evaluate_size=9, solved_below=x)),
    "Recipe.settings": (0.5, lambda x: trained(optimizer="momentum", settings={"momentum": x})),
    "Task.n_in": (100, lambda x: dataclasses.replace(TASK, n_in=x).empty(1, 2, 3, "float32").inputs.shape),
    "Task.n_out": (100, lambda x: dataclasses.replace(TASK, n_out=x).n_out),
    "Task.shortest": (100, lambda x: draws(dataclasses.replace(TASK, shortest=x), length=100)),
    "Task.tolerance": (0.25, lambda x: dataclasses.replace(TASK, tolerance=x).tolerance),
    "Task.steps": (100, lambda x: (MEMORY.steps(x) * 3, nf.load_task("addition").steps(x) * 3)),
    "Task.trivial": (100, lambda x: [nf.load_task(name).trivial(x) for name in nf.names("tasks")]),
    "Task.sample.seed": (100, lambda x: draws(seed=x)),
    "Task.sample.index": (100, lambda x: draws(index=x)),
    "Task.sample.batch_size": (100, lambda x: draws(batch_size=x)),
    "Task.sample.length": (120, lambda x: draws(MEMORY, length=x)),
    "Task.sample.replicas": (100, lambda x: draws(replicas=x)),
    "Trivial.guessing.values": (100, lambda x: Trivial.guessing(x, 2)),
    "Trivial.guessing.symbols": (100, lambda x: Trivial.guessing(2, x)),
    "Trivial.guessing.steps": (100, lambda x: Trivial.guessing(2, 5, x)),
    "apply_update.lr": (0.25, lambda x: nf.apply_update("momentum", THETA, 0.1 * THETA, x)),
    "apply_update.settings": (
        0.5,
        lambda x: nf.apply_update("momentum", THETA, 0.1 * THETA, 0.1, settings={"momentum": x}),
    ),
    "average_of_clipped.sizes": (
        2,
        lambda x: nf.average_of_clipped(NET, THETA, BATCHES, sizes=[1, x], thresholds=[0.5]),
    ),
    "average_of_clipped.thresholds": (
        0.25,
        lambda x: nf.average_of_clipped(NET, THETA, BATCHES, sizes=[1, 2], thresholds=[x]),
    ),
    "calibrate_threshold.updates": (100, lambda x: calibrated(updates=x)),
    "calibrate_threshold.seed": (100, lambda x: calibrated(updates=2, seed=x)),
    "Clip.length": (0.25, lambda x: nf.clip(NET, gradient().d_theta, nf.Clip("random", 1e-3, length=x), rng=0)),
    "clip.rng": (100, lambda x: nf.clip(NET, gradient().d_theta, nf.Clip("random", 0.01), rng=x)),
    "clipping_bias.length": (100, lambda x: bias(length=x)),
    "clipping_bias.batch_size": (100, lambda x: bias(batch_size=x)),
    "clipping_bias.count": (100, lambda x: bias(count=x, batch_size=1)),
    "clipping_bias.seed": (100, lambda x: bias(seed=x, length=(10, 20))),
    "clipping_bias.large": (0.25, lambda x: bias(large=x)),
    "clipping_bias.resamples": (100, lambda x: bias(resamples=x)),
    "clipping_bias.confidence": (0.75, lambda x: bias(confidence=x)),
    "clipping_bias.rng": (100, lambda x: bias(rng=x)),
    "diagnose.k": (3, lambda x: nf.diagnose(NET, THETA, BATCH, k=x)),
    "diagnose.sequences": (3, lambda x: nf.diagnose(NET, THETA, BATCH, sequences=x)),
    "evaluate.length": (120, lambda x: evaluated(length=x)),
    "evaluate.size": (100, lambda x: evaluated(size=x)),
    "evaluate.seed": (100, lambda x: evaluated(seed=x)),
    "evaluate.index": (100, lambda x: evaluated(index=x, size=500)),
    "from_torch.num_layers": (2, lambda x: nf.from_torch(STACKED, cell="tanh", num_layers=x, loss="square")[1]),
    "fixed_points.starts": (3, lambda x: nf.fixed_points(NET, THETA, 0, starts=x)),
    "fixed_points.steps": (3, lambda x: nf.fixed_points(NET, THETA, 0, steps=x)),
    "fixed_points.tolerance": (0.25, lambda x: nf.fixed_points(NET, THETA, 0, tolerance=x)),
    "fixed_points.apart": (0.25, lambda x: nf.fixed_points(NET, THETA, 0, apart=x)),
    "fixed_points.rng": (100, lambda x: nf.fixed_points(NET, THETA, 0, rng=x)),
    "gains_by_lag.confidence": (0.75, lambda x: nf.gains_by_lag(NET, THETA, BATCH, confidence=x)),
    "gradient.clip_example": (0.25, lambda x: gradient(clip_example=x)),
    "gradient.clip_microbatch": (2, lambda x: gradient(clip_microbatch=(x, 0.25))),
    "gradient.recompute_every": (100, lambda x: gradient(recompute_every=x)),
    "gradient.checkpoint_every": (100, lambda x: gradient(checkpoint_every=x)),
    "init.rng": (100, lambda x: (nf.init(NET, "glorot", rng=x), nf.init(NET, "glorot", rng=x, replica_ids=[1]))),
    "init.replicas": (100, lambda x: nf.init(NET, "glorot", rng=0, replicas=x)),
    "init.replica_ids": (100, lambda x: nf.init(NET, "glorot", rng=0, replica_ids=[x])),
    "jacobian_singular_values.k": (3, lambda x: nf.jacobian_singular_values(NET, THETA, BATCH.inputs, x)),
    "load_cell.rate": (0.25, lambda x: nf.load_cell("leaky_tanh", rate=x).settings),
    "load_rule.settings": (100, lambda x: trained(clip=nf.Clip(nf.load_rule("spam", interval=x), 5.0, "skip"))),
    "load_threshold.settings": (100, lambda x: followed(nf.load_threshold("percentile", percent=x, window=x))),
    "lyapunov_exponents.k": (3, lambda x: nf.lyapunov_exponents(NET, THETA, LONG.inputs, x)),
    "lyapunov_exponents.every": (100, lambda x: nf.lyapunov_exponents(NET, THETA, LONG.inputs, 2, x)),
    "lyapunov_exponents.discard": (100, lambda x: nf.lyapunov_exponents(NET, THETA, LONG.inputs, 2, 7, discard=x)),
    "matched_threshold.part": (
        0.75,
        lambda x: nf.matched_threshold(NET, THETA, BATCHES, nf.Clip("value", 1.0), part=x),
    ),
    "matched_threshold.rng": (
        100,
        lambda x: nf.matched_threshold(NET, THETA, BATCHES, nf.Clip("random", 1.0), rng=x),
    ),
    "norm_quantiles.q": (0.75, lambda x: nf.norm_quantiles(NET, THETA, BATCHES, [x])),
    "saturation.margin": (0.25, lambda x: nf.saturation(NET, THETA, BATCH, margin=x)),
    "saturation.confidence": (0.75, lambda x: nf.saturation(NET, THETA, BATCH, confidence=x)),
    "step_jacobians.at": (10, lambda x: nf.step_jacobians(NET, THETA, BATCH.inputs, at=[x])),
    "train.seed": (100, lambda x: trained_by(seed=x)),
    "train.replica_ids": (100, lambda x: trained_by(replica_ids=[x])),
    "train.checkpoint_seconds": (100, lambda x: trained_by(checkpoint_seconds=x)),
    "updater.seed": (100, lambda x: updated(seed=x)),
    "updater.replica_ids": (100, lambda x: updated(replica_ids=[x])),
    "Text.split.fractions": (0.25, lambda x: sizes(TEXT.split((x, 0.75)))),
    "Text.task.held_out": (0.125, lambda x: repr(TEXT.task(x))),
    "text_batches.batch_size": (100, lambda x: list(nf.data.text_batches(TEXT.tokens, x, 2))),
    "text_batches.length": (100, lambda x: list(nf.data.text_batches(TEXT.tokens, 3, x))),
    "piano_roll_batches.batch_size": (100, lambda x: list(nf.data.piano_roll_batches(PIECES, x, rng=0, bucket=2))),
    "piano_roll_batches.length": (5, lambda x: list(nf.data.piano_roll_batches(PIECES, 100, x, rng=0))),
    "piano_roll_batches.rng": (100, lambda x: list(nf.data.piano_roll_batches(PIECES, 100, rng=x))),
    "piano_roll_batches.bucket": (100, lambda x: list(nf.data.piano_roll_batches(PIECES, 3, rng=0, bucket=x))),
    "evaluation_batches.batch_size": (100, lambda x: list(nf.data.evaluation_batches(PIECES, x, bucket=2))),
    "evaluation_batches.bucket": (100, lambda x: list(nf.data.evaluation_batches(PIECES, 3, bucket=x))),
    "success_rate.solved": (100, lambda x: nf.statistics.success_rate(x, 120)),
    "success_rate.runs": (100, lambda x: nf.statistics.success_rate(3, x)),
    "success_rate.confidence": (0.75, lambda x: nf.statistics.success_rate(3, 9, confidence=x)),
    "rate_difference.solved": (100, lambda x: nf.statistics.rate_difference((x, 3), (120, 30))),
    "rate_difference.runs": (100, lambda x: nf.statistics.rate_difference((90, 3), (x, 30))),
    "rate_difference.confidence": (0.75, lambda x: nf.statistics.rate_difference((9, 3), (10, 30), confidence=x)),
    "mean_interval.confidence": (0.75, lambda x: nf.statistics.mean_interval(SOME, confidence=x)),
    "passages.first_passage": (100, lambda x: ecdf(passages([x, None], 300))),
    "passages.updates": (100, lambda x: ecdf(passages([3, None], x))),
    "survival.confidence": (0.75, lambda x: nf.statistics.survival(TIMES, confidence=x)),
    "bootstrap.confidence": (0.75, lambda x: nf.statistics.bootstrap(SOME[0], confidence=x, resamples=99)),
    "bootstrap.resamples": (100, lambda x: nf.statistics.bootstrap(SOME[0], resamples=x)),
    "bootstrap.rng": (100, lambda x: nf.statistics.bootstrap(SOME[0], resamples=99, rng=x)),
    "equivalence.margin": (0.75, lambda x: nf.statistics.equivalence(*SOME, x)),
    "equivalence.alpha": (0.125, lambda x: nf.statistics.equivalence(*SOME, 1.0, alpha=x)),
    "paired_equivalence.margin": (0.75, lambda x: nf.statistics.paired_equivalence(*SOME, x)),
    "paired_equivalence.alpha": (0.125, lambda x: nf.statistics.paired_equivalence(*SOME, 1.0, alpha=x)),
    "equivalence_of_rates.solved": (100, lambda x: nf.statistics.equivalence_of_rates((x, 90), (120, 120), 0.3)),
    "equivalence_of_rates.runs": (100, lambda x: nf.statistics.equivalence_of_rates((90, 90), (x, 120), 0.3)),
    "equivalence_of_rates.margin": (0.25, lambda x: nf.statistics.equivalence_of_rates((90, 90), (99, 99), x)),
    "equivalence_of_rates.alpha": (
        0.125,
        lambda x: nf.statistics.equivalence_of_rates((90, 90), (99, 99), 0.3, alpha=x),
    ),
    "holm.p": (0.125, lambda x: nf.statistics.holm([x, 0.01])),
}
STACK = nf.Stack([nf.Network("tanh", 2, 3, 1, "square"), nf.Network("tanh", 3, 3, 2, "square")])
STACKED = nf.to_torch(STACK, nf.init(STACK, "glorot", rng=0))
LONG = TASK.sample(seed=0, index=0, batch_size=2, length=300, dtype="float64")
# What takes numbers of another kind: settings of a record of one's own, which are checked where it is made; sweeps, of
# which `Experiment` is made; files.
ELSEWHERE = {
    "Cell.ranges", "Cell.limits", "Loss.start", "Loss.targets", "Optimizer.settings", "Optimizer.limits",
    "StatefulRule.settings", "StatefulRule.limits", "Threshold.memory", "Threshold.settings", "Threshold.limits",
    "Task.fill", "warm_up.workers", "sweep.seeds", "sweep.workers", "sweep.group_size", "sweep.checkpoint_seconds",
    "read_text.max_bytes", "read_text_files.max_bytes", "read_piano_rolls.max_bytes", "read_piano_rolls.step",
    "read_piano_rolls.parts", "read_piano_rolls.seed", "read_pieces.max_bytes", "read_pieces.step", "Swept.missing",
    "Staged.passed", "Task.trivial",
}  # fmt: skip


def bias_of(how):
    return nf.clipping_bias(NET, THETA, BATCHES, {"it": how}, resamples=20, rng=0)


def calibrated(**named):
    return nf.calibrate_threshold(NET, THETA, TASK, nf.Recipe(lengths=10, batch_size=2), **named)


def evaluated(**changes):
    net = nf.Network("tanh", MEMORY.n_in, 3, MEMORY.n_out, dtype="float64")
    theta = nf.init(net, "smart_tanh", rng=0, replicas=2)
    return nf.evaluate(net, theta, MEMORY, **({"length": 10, "size": 9} | changes))


def followed(threshold):
    return trained(max_updates=5, clip=nf.Clip("norm", threshold))


def sizes(texts):
    return [text.tokens.size for text in texts]


def ecdf(times):
    return nf.statistics.survival(times)


def seen(thing):
    """Return all that a result says, to the bit, but the time that it took."""
    if isinstance(thing, nf.Run):
        found = thing.as_dict()
        found["seconds"] = found["history"]["seconds"] = None
        return seen(found), seen(thing.theta)
    if isinstance(thing, np.ndarray):
        return thing.dtype.str, thing.shape, thing.tobytes()
    if dataclasses.is_dataclass(thing):
        return [seen(getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    if isinstance(thing, dict):
        return {name: seen(value) for name, value in thing.items()}
    if isinstance(thing, list | tuple):
        return [seen(one) for one in thing]
    return type(thing).__name__, repr(thing)


INTEGERS = (np.int8, np.uint8, np.int16, np.uint64)
FLOATS = (np.float16, np.float32, np.longdouble)


@pytest.mark.parametrize("name", CASES)
def test_a_number_of_numpys_counts_as_the_python_number_that_it_is(name):
    value, call = CASES[name]
    expected = seen(call(value))
    for dtype in INTEGERS if isinstance(value, int) else FLOATS:
        assert seen(call(dtype(value))) == expected, dtype.__name__
    try:
        assert seen(call(np.array(value))) == expected
    except (TypeError, ValueError):
        pass  # refused, which is no wrong number


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("Task.t", "Task.s", "Task.n"))])
def test_a_truth_value_of_numpys_is_no_number(name):
    if name in ("init.rng", "clip.rng") or ".rng" in name:
        return  # whatever numpy takes as a seed
    if re.match(r"(passages|holm|Trivial|norm_quantiles|Text|Experiment.n_hidden|average_of_clipped)", name):
        return
    with pytest.raises((TypeError, ValueError)):
        CASES[name][1](np.True_)


def public():
    """Yield the name and the object of what users call: functions, and the records that they make."""
    places = {**{name: getattr(nf, name) for name in nf.__all__}}
    for module in (nf.data, nf.statistics):
        places |= {name: getattr(module, name) for name in dir(module) if not name.startswith("_")}
    for name, thing in places.items():
        if callable(thing) and getattr(thing, "__module__", "").startswith("nbflow"):
            yield name, thing
    yield from (("Task.sample", nf.Task.sample), ("Text.split", nf.data.Text.split), ("Text.task", nf.data.Text.task))
    yield from (("Experiment.theta", nf.Experiment.theta), ("Trivial.guessing", Trivial.guessing))


def test_every_number_that_a_public_function_takes_is_tried():
    missing = set()
    for name, thing in public():
        if inspect.isclass(thing) and (hasattr(thing, "_fields") or thing in (nf.Run, nf.Store)):
            continue  # what nbflow returns
        for parameter in inspect.signature(thing).parameters.values():
            kind = str(parameter.annotation)
            if re.search(r"\b(int|float)\b", kind) and "NDArray" not in kind and "Callable[..., tuple" not in kind:
                missing.add(f"{name}.{parameter.name}")
    assert missing - set(CASES) - ELSEWHERE == set()


def test_a_network_that_knows_nothing_is_solved_by_no_dtype():
    """200 as a uint8 times anything is small: an untrained network passed for one that is never wrong."""
    for size in (200, np.uint8(200), np.uint64(200)):
        run = trained(evaluate_every=1, evaluate_size=size, lr=0.0)
        assert run.evaluations["score"] == trained(evaluate_every=1, evaluate_size=200, lr=0.0).evaluations["score"]
        assert run.evaluations["score"][0] > 0.5
        assert run.first_passage is None


def test_records_keep_no_numpy_scalar():
    how = nf.Recipe(
        "momentum", lr=np.float32(0.1), batch_size=np.uint8(3), lengths=(np.int8(10), np.int8(12)),
        solved_below=np.float64(0.5),
        clip=nf.Clip("norm", np.array(1.0)), clip_microbatch=(np.int8(1), np.float16(2)), stop_when_solved=np.True_,
        settings={"momentum": np.float32(0.5)},
    )  # fmt: skip
    assert type(how.lr) is float
    assert how.lr == float(np.float32(0.1))
    assert how.lengths == (10, 12)
    assert all(type(one) is int for one in (*how.lengths, how.batch_size, how.clip_microbatch[0]))
    assert type(how.clip.threshold) is float
    assert how.stop_when_solved is True
    assert type(how.settings["momentum"]) is float
