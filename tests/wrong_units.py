"""Units and records that are wrong in many ways, and what nbflow makes of each: a line of JSON a case.

    python wrong_units.py [large] [FIRST]

Run by `test_fuzz_units.py`, in a process of its own, for what is wrong here may end one. A case is refused by one of
nbflow's messages, or what is accepted is right: held against a plain loop over the same formulas in Python.
"""

# ruff: noqa: NPY002 - numba draws so

from __future__ import annotations

import json
import re
import sys
import time

import numba
import numpy as np
from tolerance import differenced

import nbflow as nf
from nbflow import counter, scalars
from nbflow.data.sampler import DataTask, Sampler
from nbflow.data.synthetic import Task
from nbflow.model._step import preactivations
from nbflow.records import Batch, Cell, Clip, Loss, Optimizer, Penalty, Rule, StatefulRule, StatePenalty, Threshold

ROWS, LISTED, NAMED = np.arange(4.0), [1.0, 2.0], {"a": 1.0}
FROZEN = np.arange(4.0)
FROZEN.flags.writeable = False

# Each unit: its arguments, what is right, one result too many and too few, one of its numbers, and one of its tuples.
E_CELL = "(d[0] * (ONE - s_next[0] * s_next[0]),)"
FIELDS = {
    "Cell.step": (
        "a_in, a_rec, s",
        "(tanh(a_in[0] + a_rec[0]),), ()",
        "(a_in[0], a_in[0]), ()",
        "(), ()",
        "a_in[0]",
        "s",
    ),
    "Loss.slope": ("accumulator, y, t", "TWO * (y - t)", "(y, t)", "()", "y", "accumulator"),
    "Penalty.value": ("q", "(q - ONE) * (q - ONE)", "(q, q)", "()", "q", "(q,)"),
    "Rule.clip": (
        "g, norm, threshold",
        "(g / norm) * threshold if norm > threshold else g",
        "(g, g)",
        "()",
        "g",
        "(g,)",
    ),
    "StatefulRule.clip": (
        "g, norm, joint, threshold, slots, settings, n",
        "((slots[0] + settings[0] * (g - slots[0])) if norm > threshold else g), (g,)",
        "g, (g, g)",
        "g, ()",
        "g",
        "slots",
    ),
    "Optimizer.update": (
        "theta, d, slots, lr, settings, n",
        "theta - lr * d, (slots[0] + d,)",
        "theta, (d, d)",
        "theta, ()",
        "d",
        "slots",
    ),
    "Threshold.value": (
        "norm, memory, settings, update",
        "settings[0] + memory[0]",
        "(norm, norm)",
        "()",
        "norm",
        "memory",
    ),
    "Task.inputs": ("word, plan, t", "plan[0] + t % 2", "(t, t)", "()", "t", "plan"),
    "Cell.step_vjp": (
        "saved, s, s_next, d",
        f"{E_CELL}, {E_CELL}, ()",
        f"{E_CELL}, {E_CELL}, (d[0],)",
        f"{E_CELL}, ()",
        "d[0]",
        "s",
    ),
    "Loss.fold": ("accumulator, y, t", "(accumulator[0] + (y - t) * (y - t),)", "(y, t)", "()", "y", "accumulator"),
    "Loss.value": (
        "accumulator",
        "accumulator[0]",
        "(accumulator[0], accumulator[0])",
        "()",
        "accumulator[0]",
        "accumulator",
    ),
    "Penalty.slope": ("q", "TWO * (q - ONE)", "(q, q)", "()", "q", "(q,)"),
    "StatePenalty.value": ("n, before", "(n - before) * (n - before)", "(n, n)", "()", "n", "(n, before)"),
    "StatePenalty.slope": (
        "n, before",
        "TWO * (n - before), TWO * (before - n)",
        "n, n, n",
        "(n,)",
        "n",
        "(n, before)",
    ),
    "StatefulRule.measured": ("g, slots", "g - slots[0]", "(g, g)", "()", "g", "slots"),
    "Threshold.learn": ("norm, memory, settings", "None", "norm", "()", "norm", "memory"),
    "Task.plan": ("stream, length", "(length % 2, 0)", "'a'", "(None,)", "length", "stream"),
    "Task.target": ("plan, t", "plan[0] * 0", "(t, t)", "()", "t", "plan"),
    "Task.counts": ("plan, t", "t == 3", "(True, True)", "()", "t", "plan"),
    "Task.counted": ("length", "1", "(1, 1)", "()", "length", "(length,)"),
}
SMALL = 8  # one unit of each kind, and of its ways a third

# What a unit does beside returning, or instead: lines before its result, and its result. N is a number, S a tuple.
BODIES = {
    "right": ("", "GOOD"), "returns None": ("", "None"), "returns nothing": ("GOOD", ""),
    "returns a string": ("", "'a'"), "returns an array": ("", "np.zeros(1)"),
    "a tuple of arrays": ("", "(np.zeros(1),)"),
    "a list": ("", "[N]"), "a bool": ("", "N > 0"), "an int": ("", "int(N)"), "a complex number": ("", "N * 1j"),
    "a tuple of complex numbers": ("", "((N * 1j,), ())"), "too much": ("", "MORE"), "too little": ("", "LESS"),
    "a dict": ("", "{1: N}"), "a function": ("", "tanh"),
    "raises": ("raise ValueError('mine')", "GOOD"), "raises seldom": ("if N > 1e6: raise ValueError('mine')", "GOOD"),
    "asserts": ("assert N < 1e6", "GOOD"), "a constant place outside": ("x = S[7]", "GOOD"),
    "a place outside": ("x = S[int(N) + 10**7]\n    if x > 1e30: return GOOD", "GOOD"),
    "a place far before": ("x = S[int(N) - 10**7]\n    if x > 1e30: return GOOD", "GOOD"),
    "a global array": ("x = ROWS[int(N)]\n    if x > 1e30: return GOOD", "GOOD"),
    "beyond a global array": ("x = ROWS[10**9 + int(N)]\n    if x > 1e30: return GOOD", "GOOD"),
    "beyond a frozen array": ("x = FROZEN[10**9 + int(N)]\n    if x > 1e30: return GOOD", "GOOD"),
    "writes a global array": ("ROWS[0] = N", "GOOD"), "a global list": ("x = LISTED[0]", "GOOD"),
    "changes a list": ("LISTED.append(1.0)", "GOOD"), "a dict outside": ("x = NAMED['a']", "GOOD"),
    "calls itself": ("if N > 1e30: return unit(ARGS)", "GOOD"), "calls itself always": ("", "unit(ARGS)"),
    "calls back": ("if N > 1e30: return other(ARGS)", "GOOD"),
    "allocates": ("x = np.zeros(3)\n    x[0] = N\n    if x.sum() > 1e30: return GOOD", "GOOD"),
    "prints": ("print('said')", "GOOD"), "a generator": ("yield N", "GOOD"),
    "not there": ("x = missing(N)", "GOOD"), "opens a file": ("x = open('/nowhere')", "GOOD"),
    "a try": ("try:\n        x = N\n    except Exception:\n        x = N", "GOOD"),
    "a class": ("class A: pass", "GOOD"),
    "not a number": ("", "NAN"),
}  # fmt: skip
NAN = {
    "Cell.step": "(a_in[0] * nan,), ()", "StatefulRule.clip": "g * nan, (g,)", "Optimizer.update": "d * nan, (d,)",
    "Cell.step_vjp": "(nan,), (nan,), ()",
    "Loss.fold": "(y * nan,)", "StatePenalty.slope": "n * nan, n", "Task.inputs": "nan", "Task.plan": "(nan, nan)",
    "Task.target": "nan", "Task.counts": "nan", "Task.counted": "nan", "Threshold.learn": "nan",
}  # fmt: skip
SPACE = {
    "np": np, "tanh": scalars.tanh, "ONE": scalars.ONE, "TWO": scalars.TWO, "nan": np.float32(np.nan), "ROWS": ROWS,
    "FROZEN": FROZEN, "LISTED": LISTED, "NAMED": NAMED, "__name__": "own",
}  # fmt: skip


def function_of(field, body, arguments=None):
    """Return a plain function with such a body, which calls itself by the name `unit`."""
    given, good, more, less, number, row = FIELDS[field]
    before, result = BODIES[body]
    text = f"{before}\n    return {result}"
    words = {"GOOD": good, "MORE": more, "LESS": less, "NAN": NAN.get(field, f"{number} * nan"), "N": number, "S": row,
             "ARGS": given}  # fmt: skip
    for word in ("GOOD", "MORE", "LESS", "NAN", "ARGS", "N", "S"):
        text = re.sub(rf"\b{word}\b", lambda _, word=word: words[word], text)
    space = dict(SPACE)
    exec(f"def unit({given if arguments is None else arguments}):\n    {text.strip() or 'pass'}\n", space)
    return space["unit"]


def made(function):
    """Return the unit of a function; by the names `unit` and `other` it calls itself, and one that calls back."""
    space = function.__globals__
    space["unit"] = nf.unit(function)
    count = function.__code__.co_argcount
    names = ", ".join(f"x{k}" for k in range(count))
    exec(f"def other({names}):\n    return unit({names})\n", space)
    space["other"] = nf.unit(space["other"])
    return space["unit"]


class Callable:
    def __call__(self, *arguments):
        return arguments[0]


async def later(*arguments):
    return arguments[0]


def ways(field):
    """Yield (name, a function that returns the unit or what is in its place)."""
    given = FIELDS[field][0]
    for body in BODIES:
        yield body, lambda body=body: made(function_of(field, body))
    plain = function_of(field, "right")
    yield "a plain function", lambda: plain
    yield "a lambda", lambda: lambda *arguments: plain(*arguments)
    yield "a string", lambda: "tanh"
    yield "a number", lambda: 3.0
    yield "an array", lambda: np.zeros(3)
    yield "an object", Callable
    yield "a class", lambda: Callable
    yield "a later one", lambda: later
    yield "one that numba made", lambda: numba.njit(plain)
    yield "a ufunc", lambda: numba.vectorize(lambda x: x)
    yield "an argument too few", lambda: made(function_of(field, "returns None", ", ".join(given.split(", ")[1:])))
    yield "an argument too many", lambda: made(function_of(field, "right", f"{given}, more"))
    yield "arguments by name", lambda: made(function_of(field, "right", f"{given}, *, more"))
    if field not in ("Cell.step_vjp", "Threshold.learn"):
        yield "nothing", lambda: None


# --------------------------------------------------------------------------------------- what is right, in plain Python

RNG = np.random.default_rng(0)
N, H, M, T, B = 2, 3, 2, 4, 2
BATCH = Batch(RNG.normal(size=(T, B, N)), RNG.normal(size=(T, B, M)), np.full((T, B), 1 / B))
RECIPE = {"lr": 0.1, "batch_size": 2, "lengths": 10, "max_updates": 3, "record_every": 1, "evaluate_every": 0}


def network(cell="tanh", loss="square"):
    return nf.Network(cell, N, H, M, loss, dtype="float64")


def theta_of(net):
    return np.random.default_rng(1).normal(size=net.size)


def good(kind):
    """Return the right units of a kind of record, by field."""
    return {
        name.partition(".")[2]: made(function_of(name, "right")) for name in FIELDS if name.partition(".")[0] == kind
    }


# A unit that is wrong is so by far more than differences are off.
OFF = differenced(1e-5, 2, condition=1000)


def close(got, wanted, tolerance=OFF):
    return bool(np.allclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=False))


def plainly(unit):
    return getattr(unit, "py_func", unit)


def use_cell(cell):
    net = network(cell)
    theta = theta_of(net)
    params, h, step = nf.unpack(net, theta), np.zeros((B, H)), plainly(cell.step)
    wanted = np.empty((T, B, M))
    for t in range(T):
        a_in, a_rec = preactivations(params, BATCH.inputs[t], h)
        h = np.array(
            [[step((a_in[b, 0, j],), (a_rec[b, 0, j],), (h[b, j],))[0][0] for j in range(H)] for b in range(B)]
        )
        wanted[t] = h @ params.w_out + params.b_out
    right = close(nf.predict(net, theta, BATCH.inputs), wanted)
    return right and nf.check_gradient(net, theta, BATCH).error_central < OFF


def use_loss(loss):
    net = network(loss=loss)
    theta = theta_of(net)
    y, wanted = nf.predict(net, theta, BATCH.inputs), 0.0
    for t in range(T):
        for b in range(B):
            kept = loss.start
            for one, target in zip(y[t, b], BATCH.targets[t, b], strict=True):
                kept = plainly(loss.fold)(kept, one, target)
            wanted += BATCH.weights[t, b] * plainly(loss.value)(kept)
    right = close(nf.gradient(net, theta, BATCH).loss, wanted)
    return right and nf.check_gradient(net, theta, BATCH).error_central < OFF


def use_penalty(penalty):
    net = network()
    flow = nf.Flow(penalty, 0.5, "exact") if isinstance(penalty, Penalty) else nf.Flow(penalty, 0.5)
    return nf.check_gradient(net, theta_of(net), BATCH, flow=flow).error_central < OFF


def use_rule(rule):
    net = network()
    d = theta_of(net)
    got = nf.clip(net, d, Clip(rule, 0.5)).d_theta
    return close(got, [plainly(rule.clip)(g, np.linalg.norm(d), 0.5) for g in d])


def use_stateful_rule(rule):
    net = network()
    theta = theta_of(net)
    run = nf.train(net, theta, lambda update: BATCH, nf.Recipe(clip=Clip(rule, 0.5, "skip"), **RECIPE))
    slots, settings = [(0.0,) * len(rule.slots)] * net.size, tuple(rule.settings.values())
    measured = (lambda g, slots: g) if rule.measured is None else plainly(rule.measured)
    for update in range(RECIPE["max_updates"]):
        d = nf.gradient(net, theta, BATCH).d_theta
        norm = np.linalg.norm([measured(*row) for row in zip(d, slots, strict=True)])
        kept = [plainly(rule.clip)(g, norm, norm, 0.5, row, settings, update + 1.0)
                for g, row in zip(d, slots, strict=True)]  # fmt: skip
        theta, slots = theta - 0.1 * np.array([g for g, _ in kept]), [row for _, row in kept]
    return close(run.theta, theta)


def use_optimizer(optimizer):
    net = network()
    theta = theta_of(net)
    run = nf.train(net, theta, lambda update: BATCH, nf.Recipe(optimizer=optimizer, **RECIPE))
    slots, settings = [(0.0,) * len(optimizer.slots)] * net.size, tuple(optimizer.settings.values())
    for update in range(RECIPE["max_updates"]):
        d = nf.gradient(net, theta, BATCH).d_theta
        moved = [
            plainly(optimizer.update)(*row, 0.1, settings, update + 1.0) for row in zip(theta, d, slots, strict=True)
        ]
        theta, slots = np.array([one for one, _ in moved]), [kept for _, kept in moved]
    return close(run.theta, theta)


def use_threshold(how):
    net = network()
    run = nf.train(net, theta_of(net), lambda update: BATCH, nf.Recipe(clip=Clip("norm", how), **RECIPE))
    memory, settings = np.zeros(how.memory), tuple(how.settings.values())
    for update, (norm, got) in enumerate(zip(run.history["norm"], run.history["threshold"], strict=True)):
        if not close(got, plainly(how.value)(norm, memory, settings, update)):
            return False
        if how.learn is not None:
            plainly(how.learn)(norm, memory, settings)
    return True


def use_task(task):
    got = task.sample(seed=1, index=2, batch_size=3, length=12)
    net = nf.Network("tanh", task.n_in, 3, task.n_out, task.loss)
    nf.train(net, nf.init(net, "glorot", rng=0), task, nf.Recipe(**RECIPE))
    steps = task.steps(12)
    for b in range(3):
        stream = (1, counter.TRAIN, 0, 2, b)
        plan = plainly(task.plan)(stream, 12)
        for t in range(steps):
            word = counter.draw(*stream, 1 + t // 4)[t % 4]
            if not close(got.inputs[t, b], plainly(task.inputs)(word, plan, t)):
                return False
            counts = plainly(task.counts)(plan, t)
            if counts and not close(got.targets[t, b], plainly(task.target)(plan, t)):
                return False
            if not close(got.weights[t, b], counts / 3 / plainly(task.counted)(12)):
                return False
    return True


def use_sampler(task):
    net = nf.Network("tanh", 4 if isinstance(task, Own) else 2, 3, 3 if isinstance(task, Own) else 2)
    run = nf.train(net, nf.init(net, "glorot", rng=0), task, nf.Recipe(**{**RECIPE, "evaluate_every": 1}))
    return bool(np.isfinite(run.theta).all())


def cell_of(**fields):
    return Cell(**{"gates": ("a",), "states": ("h",), "step": good("Cell")["step"], **fields})


def loss_of(**fields):
    return Loss(**{"classes": False, "start": (0.0,), "units": "units", **good("Loss"), **fields})


def rule_of(**fields):
    return Rule(**{"over": "all", **good("Rule"), **fields})


def stateful_rule_of(**fields):
    clip = good("StatefulRule")["clip"]
    return StatefulRule(**{"over": "all", "clip": clip, "slots": ("a",), "settings": {"b": 0.5}, **fields})


def optimizer_of(**fields):
    return Optimizer(**{"slots": ("a",), "settings": {"b": 0.5}, **good("Optimizer"), **fields})


def threshold_of(**fields):
    return Threshold(**{"memory": 1, "settings": {"first": 0.5}, "value": good("Threshold")["value"], **fields})


def task_of(**fields):
    return Task(**{"n_in": 4, "n_out": 3, "loss": "softmax", "tokens": True, **good("Task"), **fields})


KINDS = {
    "Cell": (cell_of, use_cell), "Loss": (loss_of, use_loss),
    "Penalty": (lambda **fields: Penalty(**{**good("Penalty"), **fields}), use_penalty),
    "StatePenalty": (lambda **fields: StatePenalty(**{**good("StatePenalty"), **fields}), use_penalty),
    "Rule": (rule_of, use_rule), "StatefulRule": (stateful_rule_of, use_stateful_rule),
    "Optimizer": (optimizer_of, use_optimizer), "Threshold": (threshold_of, use_threshold),
    "Task": (task_of, use_task),
}  # fmt: skip


# ----------------------------------------------------------------------------------------------- records that are wrong


@nf.unit
def leaky(a_in, a_rec, s):
    return (scalars.HALF * s[0] + scalars.HALF * scalars.tanh(a_in[0] + a_rec[0]),), ()


@nf.unit
def gated(a_in, a_rec, s):
    return (scalars.tanh(a_in[0]) * scalars.sigmoid(a_rec[0]),), ()


@nf.unit
def saving(a_in, a_rec, s):
    g = scalars.tanh(a_in[0] + a_rec[0])
    return (g,), (g,)


@nf.unit
def twice(saved, s, s_next, d):
    e = (scalars.TWO * d[0] * (scalars.ONE - s_next[0] * s_next[0]),)
    return e, e, ()


@nf.unit
def one_sided(saved, s, s_next, d):
    e = d[0] * (scalars.ONE - s_next[0] * s_next[0])
    return (e,), (e + e,), ()


@nf.unit
def wrong_jvp(saved, s, s_next, a_in_dot, a_rec_dot, s_dot):
    return (a_in_dot[0],)


@nf.unit
def shifted(g, norm, threshold):
    return g - threshold * np.float32(0.1) if norm > np.float32(0.5) else g


@nf.unit
def by_norm(g, norm, threshold):
    return (g / norm) * threshold if norm > threshold else g


@nf.unit
def half_slope(accumulator, y, t):
    return y - t


@nf.unit
def late(norm, memory, settings, update):
    return memory[0 if update < 2 else 10**7] + settings[0]


@nf.unit
def late_write(norm, memory, settings):
    memory[int(10**7 * norm)] = norm


@nf.unit
def endless_memory(norm, memory, settings):
    memory[0] = norm / 0.0


@nf.unit
def beyond(word, plan, t):
    return 10**6 + t


@nf.unit
def negative(plan, t):
    return -1


@nf.unit
def often(plan, t):
    return t > 2


@nf.unit
def never(plan, t):
    return False


@nf.unit
def noisy_step(a_in, a_rec, s):
    return (scalars.tanh(a_in[0] + a_rec[0]) * np.random.random(),), ()


@nf.unit
def noisy_fold(accumulator, y, t):
    return (accumulator[0] + np.random.random() * (y - t) * (y - t),)


@nf.unit
def noisy_penalty(q):
    return q * np.random.random()


@nf.unit
def noisy_clip(g, norm, threshold):
    return g * np.random.random()


@nf.unit
def noisy_stateful_clip(g, norm, joint, threshold, slots, settings, n):
    return g * np.random.random(), slots


@nf.unit
def noisy_update(theta, d, slots, lr, settings, n):
    return theta - lr * d * np.random.random(), slots


@nf.unit
def noisy_value(norm, memory, settings, update):
    return np.random.random()


@nf.unit
def noisy_inputs(word, plan, t):
    return np.random.randint(0, 4)


@nf.unit
def late_raise(norm, memory, settings, update):
    if update == 2:
        raise ValueError("mine")
    return 1.0


def changed(name, **fields):
    return lambda: KINDS[name][1](KINDS[name][0](**fields))


class Own(Sampler):
    """A sampler of one's own, right but for what is asked."""

    n_in, n_out, loss, tokens, shortest, unit = 4, 3, "softmax", True, 1, "wrong"
    inputs, targets, weights = 0, 0, 1 / 20

    def steps(self, length):
        return length

    def fill(self, batch, seed, purpose, replicas, index, length):
        for part, value in zip(batch, (self.inputs, self.targets, self.weights), strict=True):
            part[...] = value


class OwnData(Own, DataTask):
    unit, shortest = "nats", 1

    def identity(self):
        return {"own": 1}

    def held_out_batches(self, dtype):
        yield Batch(np.zeros((3, 2), np.int32), np.zeros((3, 2), np.int32), np.full((3, 2), 1 / 6, dtype))


def sampler(kind=OwnData, **attributes):
    return lambda: use_sampler(type("Own", (kind,), attributes)())


def held_out(inputs=0, targets=0, weights=1 / 6, count=1):
    def held_out_batches(self, dtype):
        for _ in range(count):
            yield Batch(
                np.full((3, 2), inputs, np.int32), np.full((3, 2), targets, np.int32), np.full((3, 2), weights, dtype)
            )

    return sampler(held_out_batches=held_out_batches)


def short_text():
    text = nf.data.Text(np.full(500, 9, np.int32), ("a", "b"))
    return use_sampler(nf.data.TextTask(text, text))


def changed_text():
    tokens = np.zeros(500, np.int32)
    text = nf.data.Text(tokens, ("a", "b"))
    task = nf.data.TextTask(text, text)
    tokens[:] = 10**6
    return use_sampler(task)


RECORDS = {
    "Cell: draws": changed("Cell", step=noisy_step),
    "Loss: draws": changed("Loss", fold=noisy_fold),
    "Penalty: draws": changed("Penalty", value=noisy_penalty),
    "Rule: draws": changed("Rule", clip=noisy_clip),
    "Optimizer: draws": changed("Optimizer", update=noisy_update),
    "Threshold: draws": changed("Threshold", value=noisy_value),
    "Task: draws": changed("Task", inputs=noisy_inputs),
    "Threshold: raises, late": changed("Threshold", value=late_raise),
    "Cell: gates are a string": changed("Cell", gates="a"),
    "Cell: no gates": changed("Cell", gates=()),
    "Cell: gates are numbers": changed("Cell", gates=(1,)),
    "Cell: two gates of one name": changed("Cell", gates=("a", "a")),
    "Cell: a list of gates": changed("Cell", gates=["a"]),
    "Cell: more states than it returns": changed("Cell", states=("h", "c")),
    "Cell: more saved than it returns": changed("Cell", saved=("x",)),
    "Cell: carries is a word": changed("Cell", carries="no"),
    "Cell: additive is an array": changed("Cell", additive=np.array([True])),
    "Cell: ranges of a number": changed("Cell", ranges=3),
    "Cell: two ranges for a gate": changed("Cell", ranges=((0, 1), (0, 1))),
    "Cell: a range backwards": changed("Cell", ranges=((1, -1),)),
    "Cell: a range that is too small": changed("Cell", ranges=((0.0, 1.0),)),
    "Cell: too large": changed("Cell", ranges=((-9.0, 9.0),)),
    "Cell: carries forgotten": changed("Cell", step=leaky),
    "Cell: additive and is not": changed("Cell", step=gated),
    "Cell: saturation reads a mixture": changed("Cell", step=leaky, carries=True, ranges=((-1.0, 1.0),)),
    "Cell: a wrong derivative": changed("Cell", step_vjp=twice),
    "Cell: wrong at a_rec": changed("Cell", step_vjp=one_sided),
    "Cell: a wrong jvp": changed("Cell", step_vjp=good("Cell")["step_vjp"], step_jvp=wrong_jvp),
    "Cell: saved forgotten": changed("Cell", step=saving),
    "Cell: right with saved": changed("Cell", step=saving, saved=("a",)),
    "Loss: start is a number": changed("Loss", start=0.0),
    "Loss: start is an array": changed("Loss", start=np.zeros(1)),
    "Loss: a longer start": changed("Loss", start=(0.0, 0.0)),
    "Loss: classes is a word": changed("Loss", classes="no"),
    "Loss: units are a number": changed("Loss", units=1),
    "Loss: targets backwards": changed("Loss", targets=(1.0, 0.0)),
    "Loss: half its slope": changed("Loss", slope=half_slope),
    "Loss: share alone": changed("Loss", share=half_slope),
    "Penalty: wrong slope": changed("Penalty", slope=good("Penalty")["value"]),
    "Rule: over is misspelt": changed("Rule", over="al"),
    "Rule: over is a tuple": changed("Rule", over=("all",)),
    "Rule: relative to all": changed("Rule", relative=True),
    "Rule: random by block": changed("Rule", random=True, over="block"),
    "Rule: numbers of its own": changed("Rule", clip=shifted),
    "Rule: an entry has no norm": changed("Rule", over="entry", clip=by_norm),
    "Rule: random is a number": changed("Rule", random=1),
    "StatefulRule: over is misspelt": changed("StatefulRule", over="al"),
    "StatefulRule: no slots": changed("StatefulRule", slots=()),
    "StatefulRule: more slots than it returns": changed("StatefulRule", slots=("a", "b")),
    "StatefulRule: relative is a number": changed("StatefulRule", relative=1),
    "StatefulRule: a setting is NaN": changed("StatefulRule", settings={"b": np.nan}),
    "StatefulRule: a limit of a setting that there is not": changed("StatefulRule", limits={"c": (0.0, 1.0)}),
    "StatefulRule: draws": changed("StatefulRule", clip=noisy_stateful_clip),
    "Optimizer: a setting is None": changed("Optimizer", settings={"b": None}),
    "Optimizer: a setting is NaN": changed("Optimizer", settings={"b": np.nan}),
    "Optimizer: a setting is a word": changed("Optimizer", settings={"b": "c"}),
    "Optimizer: settings are a list": changed("Optimizer", settings=[0.5]),
    "Optimizer: slots are a string": changed("Optimizer", slots="a"),
    "Optimizer: more slots than it returns": changed("Optimizer", slots=("a", "b")),
    "Optimizer: settings with numbers for names": changed("Optimizer", settings={1: 0.5}),
    "Threshold: looks beyond, late": changed("Threshold", value=late),
    "Threshold: writes far away": changed("Threshold", learn=late_write),
    "Threshold: remembers Inf": changed("Threshold", learn=endless_memory),
    "Threshold: no memory": changed("Threshold", memory=0),
    "Threshold: memory is -1": changed("Threshold", memory=-1),
    "Threshold: memory is a float": changed("Threshold", memory=1.5),
    "Threshold: memory asks for another": changed("Threshold", memory=lambda other: 1),
    "Threshold: memory is endless": changed("Threshold", memory=lambda first: 0.5),
    "Threshold: no settings": changed("Threshold", settings={}),
    "Threshold: a limit of nothing": changed("Threshold", limits={"b": (0.0, 1.0)}),
    "Threshold: limits backwards": changed("Threshold", limits={"first": (1.0, 0.0)}),
    "Threshold: learns_first is a word": changed("Threshold", learns_first="no"),
    "Threshold: a setting is None": changed("Threshold", settings={"first": None}),
    "Task: 0 steps": changed("Task", steps=lambda length: 0),
    "Task: -1 steps": changed("Task", steps=lambda length: -1),
    "Task: None steps": changed("Task", steps=lambda length: None),
    "Task: half steps": changed("Task", steps=lambda length: 1.5),
    "Task: tokens beyond": changed("Task", inputs=beyond),
    "Task: a class of -1": changed("Task", target=negative),
    "Task: counted is another": changed("Task", counts=often),
    "Task: nothing counts": changed("Task", counts=never),
    "Task: n_in is 0": changed("Task", n_in=0),
    "Task: n_in is a float": changed("Task", n_in=4.0),
    "Task: a loss of no name": changed("Task", loss="nope"),
    "Task: channels and no tuple": changed("Task", tokens=False),
    "Task: targets and no tuple": changed("Task", loss="square"),
    "Task: shortest is 0": changed("Task", shortest=0),
    "Task: trivial is a number": changed("Task", trivial=0.5),
    "Task: tolerance is a word": changed("Task", tolerance="much"),
    "Own: right": sampler(),
    "Own: tokens beyond": sampler(inputs=4),
    "Own: negative tokens": sampler(inputs=-1),
    "Own: targets beyond": sampler(targets=3),
    "Own: weights are NaN": sampler(weights=np.nan),
    "Own: no unit": sampler(unit=None),
    "Own: n_in is a word": sampler(n_in="4"),
    "Own: tokens is a word": sampler(tokens="yes"),
    "Own: shortest is -1": sampler(shortest=-1),
    "Own: 0 steps": sampler(steps=lambda self, length: 0),
    "Own: held out beyond": held_out(inputs=9),
    "Own: held out classes beyond": held_out(targets=-3),
    "Own: held out weights": held_out(weights=1.0),
    "Own: held out twice": held_out(count=2),
    "Own: nothing held out": held_out(count=0),
    "Own: units_per_nat is NaN": sampler(units_per_nat=np.nan),
    "Text: beyond its vocabulary": short_text,
    "Text: changed afterwards": changed_text,
}


# ------------------------------------------------------------------------------------------------------------- verdicts


def cases(large):
    """Yield (name, a function that uses what is wrong and tells whether it was right)."""
    for row, field in enumerate(list(FIELDS)[: None if large else SMALL]):
        kind, _, name = field.partition(".")
        make, use = KINDS[kind]
        for column, (way, unit) in enumerate(ways(field)):
            if not large and way != "right" and (column + row) % 3:
                continue
            yield f"{field}: {way}", lambda make=make, use=use, name=name, unit=unit: use(make(**{name: unit()}))
    yield from RECORDS.items()


OURS = re.compile(
    r"(Cell|Loss|Penalty|StatePenalty|Rule|StatefulRule|Optimizer|Threshold|Task|Own|TextTask)\.?\w*|threshold|task|tokens|cell|"
    r"first is"
)
FOREIGN = re.compile(r"Failed in nopython|numba\.core|Traceback|Cannot unify|NoneType|not subscriptable")


def verdict(use):
    """Return ("right" | "wrong" | "refused" | "bare", what was said)."""
    try:
        with np.errstate(all="ignore"):
            return ("right" if use() else "wrong"), ""
    except Exception as error:
        said = str(error)
        own = "mine" in said  # the exception of the user reaches the user
        sentences = "; expected " in said and said.rstrip().endswith((".", ")"))
        bare = not own and not (sentences and OURS.match(said) and len(said) < 700 and not FOREIGN.match(said))
        return ("bare" if bare else "refused"), f"{type(error).__name__}: {said}"


def main(arguments):
    first = int(arguments[-1]) if arguments and arguments[-1].isdigit() else 0
    for k, (name, use) in enumerate(cases("large" in arguments)):
        if k < first:
            continue
        print(json.dumps({"begins": k, "name": name}), flush=True)
        began = time.perf_counter()
        found, said = verdict(use)
        seconds = round(time.perf_counter() - began, 3)
        print(json.dumps({"ends": k, "name": name, "found": found, "said": said, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
