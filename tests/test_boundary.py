"""The public boundary: what makes no sense is refused in one grammar, and no argument is ever changed."""

import dataclasses
import re

import numpy as np
import pytest
from cases import CLIPS, DTYPES, KINDS, LOSSES, make_case, make_replicas
from hypothesis import given, strategies as st
from tolerance import near

import nbflow as nf
from nbflow._compile import JIT
from nbflow._load import load

sim = pytest.mark.sim

# name, what came, what is wanted, a remedy that is a sentence of its own.
GRAMMAR = re.compile(r".+(; expected |; got ).+\. [A-Z].+\.$", re.DOTALL)
# What numba or a traceback of compiled code would say.
FOREIGN = re.compile(r"numba|nopython|typeof|dispatcher|lowering|ctypes|float64\[|array\(float", re.IGNORECASE)
ARRAYS = ("theta", "inputs", "targets", "weights", "state")


def arrays_in(thing):
    """Yield every array in nested arguments."""
    if isinstance(thing, np.ndarray):
        yield thing
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for part in dataclasses.fields(thing):
            yield from arrays_in(getattr(thing, part.name))
    elif isinstance(thing, dict):
        yield from arrays_in(list(thing.values()))
    elif isinstance(thing, list | tuple):
        for part in thing:
            yield from arrays_in(part)


def state_of(arguments):
    """Return all that a call could change in the arrays among its arguments, their bytes included."""
    return [
        (a.shape, a.strides, a.dtype, a.flags.writeable, None if a.dtype.hasobject else np.asarray(a).tobytes())
        for a in arrays_in(arguments)
    ]


def assert_clear(error, name):
    """Check that a message follows the grammar and names the argument."""
    said = str(error)
    assert GRAMMAR.fullmatch(said), f"not in the grammar: {said!r}"
    assert re.search(rf"\b{re.escape(name)}\b", said), f"{name} is not named: {said!r}"
    assert not FOREIGN.search(said), said
    assert len(said) < 500, said


def refuse(function, *arguments, name, **keywords):
    """Check that a call is refused, clearly, and leaves its arguments as they were."""
    before = state_of((arguments, keywords))
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*arguments, **keywords)
    assert type(caught.value) in (TypeError, ValueError)
    assert_clear(caught.value, name)
    assert state_of((arguments, keywords)) == before


# --- Arrays that are wrong whatever the argument is, made from one that is right.

AS_ARRAYS = {
    "none": lambda a: None,
    "string": lambda a: "abc",
    "bool": lambda a: True,
    "number": lambda a: 1.5,
    "list": lambda a: a.tolist(),
    "class": lambda a: np.ndarray,
    "0-d": lambda a: np.zeros((), a.dtype),
    "one axis more": lambda a: a[None, None],
    "one axis less": lambda a: a.ravel() if a.ndim > 1 else a[0],
    "empty": lambda a: a[:0],
    "empty at the end": lambda a: a[..., :0],
    "one entry less": lambda a: a[..., :-1],
    "bools": lambda a: a.astype(bool),
    "complex": lambda a: a.astype(complex),
    "objects": lambda a: a.astype(object),
    "strings": lambda a: a.astype(str),
    "float16": lambda a: a.astype(np.float16),
    "longdouble": lambda a: a.astype(np.longdouble),
    "dates": lambda a: a.astype("M8[s]"),
    "record": lambda a: np.zeros(a.shape, [("x", a.dtype)]),
    "masked": lambda a: np.ma.masked_array(a, mask=np.zeros(a.shape, bool)),
    "matrix": lambda a: a.reshape(a.shape[0], -1).view(np.matrix),
    "recarray": lambda a: a.view(np.recarray),
}
FLOAT_ARRAYS = {
    "the other float": lambda a: a.astype("float32" if a.dtype == "float64" else "float64"),
    "integers": lambda a: a.astype(int),
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
}
NOT_FINITE = {
    "NaN": lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size - 1, np.nan, a).astype(a.dtype),
    "Inf": lambda a: np.where(np.arange(a.size).reshape(a.shape) == a.size - 1, -np.inf, a).astype(a.dtype),
}


def wrong_arrays(argument, right):
    """Return everything that is wrong for an argument."""
    found = dict(AS_ARRAYS)
    if right.dtype.kind == "f":
        found |= FLOAT_ARRAYS
        if argument != "theta":
            found |= NOT_FINITE
    return found


def computations(case, replicas=None):
    """Return each computation as a function of theta, inputs, targets, weights and state, and what it looks at."""
    net = case.net
    return {
        "gradient": (lambda t, x, y, w, s: nf.gradient(net, t, nf.Batch(x, y, w), state=s), ARRAYS),
        "trace": (lambda t, x, y, w, s: nf.trace(net, t, nf.Batch(x, y, w)), ARRAYS[:4]),
        "predict": (lambda t, x, y, w, s: nf.predict(net, t, x), ARRAYS[:2]),
        "workspace": (lambda t, x, y, w, s: nf.workspace(net, nf.Batch(x, y, w)), ARRAYS[1:4]),
    }


def replaced(right, argument, wrong):
    """Return the five arrays with one of them made wrong."""
    return [wrong(a) if name == argument else a for name, a in zip(ARRAYS, right, strict=True)]


def hidden(argument, label, right, function):
    """Tell whether a wrong array is a right one for this call, or wrong in the name of another argument."""
    if argument == "state" and label == "none":
        return True
    if function == "workspace" and argument == "weights":
        # Its shape says how many replicas there are.
        return label in ("one axis more", "one axis less", "0-d", "empty")
    tokens = argument == "inputs" and right.dtype.kind == "i"
    # Fewer sequences or steps are fine by themselves; then the next argument does not fit.
    fewer = argument == "inputs" and (function == "predict" or tokens) and label == "one entry less"
    # The last of a row of classes is one entry, the shape of a class array with one sequence less.
    return tokens and fewer


@sim
@pytest.mark.parametrize("function", ["gradient", "trace", "predict", "workspace"])
@pytest.mark.parametrize(("kind", "loss"), [("dense", "square"), ("tokens", "softmax"), ("dense", "bernoulli")])
@pytest.mark.parametrize("replicas", [False, True], ids=["one network", "replicas"])
def test_a_wrong_array_is_refused_by_the_name_of_its_argument(function, kind, loss, replicas):
    case = make_case("tanh", loss, kind, "all", N=3, M=4, dtype="float32")
    right = [case.theta, *case.batch, case.state]
    if replicas:
        _, theta, batch, state, _ = make_replicas(
            "tanh", R=2, loss=loss, kind=kind, when="all", N=3, M=4, dtype="float32"
        )
        right = [theta, *batch, state]
    call, looked_at = computations(case)[function]
    for argument in looked_at:
        a = right[ARRAYS.index(argument)]
        for label, wrong in wrong_arrays(argument, a).items():
            if hidden(argument, label, a, function):
                continue
            try:
                refuse(call, *replaced(right, argument, wrong), name=argument)
            except BaseException as error:
                error.add_note(f"{argument}: {label}") if hasattr(error, "add_note") else None
                raise


@sim
@pytest.mark.parametrize("replicas", [False, True], ids=["one network", "replicas"])
@pytest.mark.parametrize("argument", ["d_theta", "theta"])
def test_clip_refuses_a_wrong_array_by_the_name_of_its_argument(argument, replicas):
    case = make_case("tanh", dtype="float32")
    right = np.stack([case.theta] * 2) if replicas else case.theta

    def call(a):
        given = {"theta": right, "d_theta": right, argument: a}
        nf.clip(case.net, given["d_theta"], nf.Clip("norm", 1.0), theta=given["theta"])

    for label, wrong in (AS_ARRAYS | FLOAT_ARRAYS).items():
        if not (argument == "theta" and label == "none"):
            refuse(call, wrong(right), name=argument)
    refuse(call, right.reshape(-1) if replicas else right[None], name="theta" if not replicas else argument)


@sim
@pytest.mark.parametrize("label", sorted(AS_ARRAYS | FLOAT_ARRAYS))
def test_unpack_train_and_evaluate_refuse_a_wrong_theta(label):
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 3, task.n_out)
    theta = (AS_ARRAYS | FLOAT_ARRAYS)[label](nf.init(net, "smart_tanh", rng=0))
    refuse(nf.unpack, net, theta, name="theta")
    refuse(nf.train, net, theta, task, nf.Recipe(), name="theta")
    refuse(nf.evaluate, net, theta, task, length=10, name="theta")


@sim
@pytest.mark.parametrize("net", [None, "tanh", 3, {"cell": "tanh"}, nf.Network], ids=repr)
def test_what_is_no_network_is_refused(net):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    refuse(nf.unpack, net, case.theta, name="net")
    refuse(nf.gradient, net, case.theta, case.batch, name="net")
    refuse(nf.trace, net, case.theta, case.batch, name="net")
    refuse(nf.predict, net, case.theta, case.batch.inputs, name="net")
    refuse(nf.clip, net, case.theta, nf.Clip("norm", 1.0), name="net")
    refuse(nf.train, net, case.theta, "temporal_order", nf.Recipe(), name="net")
    refuse(nf.evaluate, net, case.theta, "temporal_order", length=10, name="net")
    refuse(nf.init, net, "orthogonal", name="net")
    refuse(nf.workspace, net, case.batch, name="net")
    refuse(nf.pack, net, case.params, name="net")


@sim
@pytest.mark.parametrize(
    "batch", [None, "abc", 3, [1, 2, 3], (1, 2), np.zeros((3, 2)), {}], ids=lambda b: type(b).__name__
)
def test_what_is_no_batch_is_refused(batch):
    case = make_case("tanh")
    refuse(nf.gradient, case.net, case.theta, batch, name="batch")
    refuse(nf.trace, case.net, case.theta, batch, name="batch")
    refuse(nf.workspace, case.net, batch, name="batch")


@sim
@pytest.mark.parametrize("params", [None, "abc", 3, (1, 2), np.zeros(3)], ids=lambda p: type(p).__name__)
def test_pack_refuses_what_is_no_params(params):
    refuse(nf.pack, make_case("tanh").net, params, name="params")


@sim
@pytest.mark.parametrize("block", nf.Params._fields)
def test_pack_refuses_a_block_of_the_wrong_shape_by_its_name(block):
    case = make_case("lstm" if "lstm" in nf.names("cells") else "tanh", N=2, H=3, M=4)
    params = nf.unpack(case.net, case.theta)
    right = getattr(params, block)
    # The same number of entries where there is another way to arrange them.
    wrong = right.reshape(*right.shape[1:], right.shape[0]) if right.ndim > 1 else np.zeros(right.size + 1)
    refuse(nf.pack, case.net, params._replace(**{block: wrong}), name=block)


@sim
def test_pack_refuses_blocks_of_another_dtype():
    case = make_case("tanh", dtype="float32")
    params = nf.unpack(case.net, case.theta)
    refuse(nf.pack, case.net, params._replace(w_in=params.w_in.astype(np.float64)), name="w_in")


# --- Tokens, classes and targets out of range.


@sim
@pytest.mark.parametrize("token", [-1, 3, 2**31, 2**32, -(2**63)])
def test_a_token_out_of_range_is_refused(token):
    case = make_case("tanh", "softmax", "tokens", N=3)
    inputs = case.batch.inputs.copy()
    inputs[-1, -1] = token
    refuse(nf.gradient, case.net, case.theta, case.batch._replace(inputs=inputs), name="inputs")
    refuse(nf.predict, case.net, case.theta, inputs, name="inputs")


@sim
def test_a_token_too_large_for_any_signed_integer_is_refused():
    case = make_case("tanh", "softmax", "tokens", N=3)
    inputs = case.batch.inputs.astype(np.uint64)
    inputs[0, 0] = 2**64 - 1
    refuse(nf.predict, case.net, case.theta, inputs, name="inputs")


@sim
@pytest.mark.parametrize("dtype", [">i4", ">u4", ">i8", "<i8"])
@pytest.mark.parametrize("value", [2**24, 2**8])
def test_the_order_of_bytes_makes_no_token_or_class_smaller(dtype, value):
    """Read the other way round, 2**24 is 1 in four bytes."""
    case = make_case("tanh", "softmax", "tokens", "all", N=3)
    inputs, targets = np.zeros_like(case.batch.inputs, dtype), np.zeros_like(case.batch.targets, dtype)
    inputs[-1, -1] = targets[-1, -1] = value
    refuse(nf.gradient, case.net, case.theta, case.batch._replace(inputs=inputs), name="inputs")
    refuse(nf.gradient, case.net, case.theta, case.batch._replace(targets=targets), name="targets")


@pytest.mark.parametrize("target", [-1, 2, 2**32, -(2**63)])
def test_a_class_out_of_range_is_refused_where_it_counts_and_fine_where_it_does_not(target):
    case = make_case("tanh", "softmax", when="last", M=2)
    wanted = nf.gradient(case.net, case.theta, case.batch)
    targets = case.batch.targets.astype(np.int64)
    targets[:-1] = target
    found = nf.gradient(case.net, case.theta, case.batch._replace(targets=targets))
    assert found.loss == wanted.loss
    np.testing.assert_array_equal(found.d_theta, wanted.d_theta)
    targets[-1, 0] = target
    refuse(nf.gradient, case.net, case.theta, case.batch._replace(targets=targets), name="targets")


@pytest.mark.parametrize("target", [-0.1, 1.1, 1e30])
def test_a_probability_out_of_range_is_refused_where_it_counts_and_fine_where_it_does_not(target):
    case = make_case("tanh", "bernoulli", when="last")
    wanted = nf.gradient(case.net, case.theta, case.batch)
    targets = case.batch.targets.copy()
    targets[:-1] = target
    found = nf.gradient(case.net, case.theta, case.batch._replace(targets=targets))
    assert found.loss == wanted.loss
    np.testing.assert_array_equal(found.d_theta, wanted.d_theta)
    targets[-1, 0, 0] = target
    refuse(nf.gradient, case.net, case.theta, case.batch._replace(targets=targets), name="targets")


@sim
def test_the_missing_channel_axis_is_shown():
    net = nf.Network("tanh", 1, 3, 1, loss="square", dtype="float64")
    theta, inputs = nf.init(net, "orthogonal", rng=0), np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"inputs has shape \(5, 2\); expected \(T, B, 1\)\. .*inputs\[\.\.\., None\]"):
        nf.predict(net, theta, inputs)


@sim
def test_a_dtype_is_refused_with_the_cast_to_write():
    case = make_case("tanh", dtype="float32")
    with pytest.raises(
        TypeError, match=r"inputs has dtype float64; expected float32\. Write inputs\.astype\(np\.float32\)"
    ):
        nf.predict(case.net, case.theta, case.batch.inputs.astype(np.float64))


@sim
def test_where_the_first_nan_lies_is_said():
    case = make_case("tanh", T=4, B=3, N=2)
    inputs = case.batch.inputs.copy()
    inputs[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match=r"inputs is nan at \[2, 1, 0\]"):
        nf.predict(case.net, case.theta, inputs)


# --- Replicas.


@sim
@pytest.mark.parametrize("kind", KINDS)
def test_the_wrong_number_of_replicas_is_refused(kind):
    net, theta, batch, state, cases = make_replicas("tanh", R=3, kind=kind, loss="square", when="all")
    alone = cases[0]
    refuse(nf.gradient, net, theta[:2], batch, name="inputs")
    refuse(nf.gradient, net, theta, alone.batch, name="inputs")
    refuse(nf.gradient, net, alone.theta, batch, name="inputs")
    refuse(nf.gradient, net, theta, batch._replace(weights=batch.weights[:2]), name="weights")
    refuse(nf.gradient, net, theta, batch._replace(targets=batch.targets[:2]), name="targets")
    refuse(nf.gradient, net, theta, batch, state=state[:2], name="state")
    refuse(nf.gradient, net, theta, batch, state=alone.state, name="state")
    refuse(nf.predict, net, theta[:2], batch.inputs, name="inputs")
    refuse(nf.clip, net, theta, nf.Clip("norm", [1.0, 2.0]), name="threshold")
    refuse(nf.gradient, net, theta, batch, flow=nf.Flow("norm", alpha=np.ones(4)), name="alpha")
    refuse(nf.gradient, net, theta[:0], batch, name="theta")


# --- Workspaces.


@sim
@pytest.mark.parametrize("space", ["abc", 3, True, [], np.zeros(3)], ids=lambda s: type(s).__name__)
def test_what_is_no_workspace_is_refused(space):
    case = make_case("tanh")
    refuse(nf.gradient, case.net, case.theta, case.batch, workspace=space, name="workspace")
    refuse(nf.trace, case.net, case.theta, case.batch, workspace=space, name="workspace")
    refuse(nf.predict, case.net, case.theta, case.batch.inputs, workspace=space, name="workspace")


@sim
@pytest.mark.parametrize("change", [{"B": 4}, {"T": 6}, {"kind": "tokens"}, {"H": 4}, {"dtype": "float32"}], ids=str)
def test_a_workspace_for_something_else_is_refused(change):
    case, other = make_case("tanh"), make_case("tanh", **change)
    space = nf.workspace(case.net, case.batch)
    refuse(nf.gradient, other.net, other.theta, other.batch, workspace=space, name="workspace")


# --- Numbers, counts and names.

NOT_COUNTS = [0, -1, True, np.True_, 1.0, np.float64(2), "3", None, [3], 1j, float("nan"), np.array([1, 2]), 10**30]
NOT_NUMBERS = [
    "1",
    None,
    True,
    np.True_,
    1j,
    [1.0, 2.0],
    [],
    [[1.0]],
    np.array([]),
    np.array([1 + 1j]),
    {},
    [[1], [2, 3]],
]
NOT_NUMBERS += [np.array([1.0], object), np.array(["1"]), np.datetime64(1, "s"), float("nan"), -1.0, -np.inf, 10**400]
NOT_NAMES = ["nope", "", "TANH", "__init__", None, 3, True, ["tanh"], np.array(["sum", "mean"]), 1.5, b"tanh", object()]


def as_id(value):
    return str(value)[:20]


@sim
@pytest.mark.parametrize("value", NOT_COUNTS, ids=as_id)
def test_a_count_that_is_none_is_refused(value):
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 3, task.n_out)
    theta = nf.init(net, "smart_tanh", rng=0)
    for name in ("n_in", "n_hidden", "n_out"):
        refuse(nf.Network, **{"cell": "tanh", "n_in": 2, "n_hidden": 2, "n_out": 2, name: value}, name=name)
    for name in ("batch_size", "length", "replicas", "seed", "index"):
        # 0 is a seed and an index; no replicas is one network.
        if not (value is None and name == "replicas") and not (
            isinstance(value, int) and value in (0, 1) and name in ("seed", "index")
        ):
            given = {"seed": 0, "index": 0, "batch_size": 1, "length": 10, name: value}
            refuse(task.sample, **given, name=name)
    if value is not None:
        refuse(nf.init, net, "orthogonal", replicas=value, name="replicas")
    for name in ("batch_size", "max_updates", "record_every", "evaluate_size", "lengths"):
        refuse(nf.Recipe, **{name: value}, name=name)
    refuse(nf.evaluate, net, theta, task, length=10, size=value, name="size")
    refuse(nf.evaluate, net, theta, task, length=value, name="length")


@sim
@pytest.mark.parametrize("value", [v for v in NOT_COUNTS if not (type(v) is int and v == 0)], ids=as_id)
def test_a_count_from_zero_that_is_none_is_refused(value):
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 3, task.n_out)
    theta = nf.init(net, "smart_tanh", rng=0)
    refuse(nf.Recipe, evaluate_every=value, name="evaluate_every")
    refuse(nf.train, net, theta, task, nf.Recipe(max_updates=1, evaluate_every=0), seed=value, name="seed")
    refuse(nf.evaluate, net, theta, task, length=10, size=1, seed=value, name="seed")
    refuse(nf.evaluate, net, theta, task, length=10, size=1, index=value, name="index")
    refuse(task.sample, seed=value, index=0, batch_size=1, length=10, name="seed")
    refuse(task.sample, seed=0, index=value, batch_size=1, length=10, name="index")


@sim
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=as_id)
def test_a_number_that_is_none_is_refused(value):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    call = (case.net, case.theta)
    # What is no number at all is refused as the record is made, one of the wrong size where it is used.
    refuse(lambda: nf.gradient(*call, case.batch, flow=nf.Flow("norm", value)), name="alpha")
    refuse(lambda: nf.gradient(*call, case.batch, flow=nf.Flow("norm", 1.0, bound=value)), name="bound")
    refuse(lambda: nf.clip(*call, nf.Clip("norm", value)), name="threshold")
    for name, make in {
        "lr": lambda: nf.Recipe(lr=value),
        "threshold": lambda: nf.Recipe(clip=nf.Clip("norm", value)),
        "alpha": lambda: nf.Recipe(flow=nf.Flow("norm", value)),
        "bound": lambda: nf.Recipe(flow=nf.Flow("norm", 1.0, bound=value)),
        "solved_below": lambda: nf.Recipe(solved_below="none" if value is None else value),  # None is the task's own
    }.items():
        refuse(lambda make=make: nf.train(*call, "temporal_order", make()), name=name)


@sim
@pytest.mark.parametrize("value", NOT_NUMBERS, ids=as_id)
@pytest.mark.parametrize("name", ["lr", "threshold", "alpha"])
def test_a_schedule_that_returns_no_number_is_refused(name, value):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    recipe = {
        "lr": nf.Recipe(lr=lambda update: value),
        "threshold": nf.Recipe(clip=nf.Clip("norm", lambda update: value)),
        "alpha": nf.Recipe(flow=nf.Flow("norm", lambda update: value)),
    }[name]
    recipe = dataclasses.replace(recipe, lengths=10, batch_size=1)  # a rate is asked for after a first gradient
    refuse(nf.train, case.net, case.theta, "temporal_order", recipe, name=name)


@sim
def test_zero_is_no_bound_and_nothing_below_zero_a_threshold_and_infinity_no_rate():
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    call = (case.net, case.theta)
    refuse(nf.Clip, "norm", -1e-300, name="threshold")
    refuse(nf.Recipe, lr=-1e-18, name="lr")
    refuse(nf.Flow, "norm", 1.0, bound=0, name="bound")
    refuse(nf.Flow, "norm", np.inf, name="alpha")
    refuse(nf.Recipe, lr=np.inf, name="lr")
    # 0 where it has a meaning.
    nf.clip(*call, nf.Clip("norm", 0.0))
    nf.gradient(*call, case.batch, flow=nf.Flow("norm", 0.0))


@nf.unit
def as_large_as_the_norm(norm, memory, settings, update):
    return norm


# What a record is made of, and what no network could make right: a number, or one of three.
WRONG_NUMBERS = {
    "lr": (lambda x: nf.Recipe(lr=x), [-0.1, np.nan, np.inf, [0.1, -0.1, 0.1], [[0.1]], []]),
    "threshold": (lambda x: nf.Clip("norm", x), [-0.1, np.nan, [0.1, np.nan, 0.1], [[0.1]], []]),
    "alpha": (lambda x: nf.Flow("norm", x), [-0.1, np.nan, np.inf, [0.1, -0.1, 0.1]]),
    "bound": (lambda x: nf.Flow("norm", 1.0, bound=x), [-0.1, np.nan, 0.0]),
    "threshold of HiddenClip": (nf.HiddenClip, [-0.1, np.nan, 0.0, [0.1, 0.0, 0.1]]),
    "threshold of ExampleClip": (nf.ExampleClip, [-0.1, np.nan, 0.0, [0.1, 0.0, 0.1]]),
    "threshold of MicrobatchClip": (lambda x: nf.MicrobatchClip(2, x), [-0.1, np.nan, 0.0, [0.1, 0.0, 0.1]]),
    "probability": (nf.HDetach, [-0.1, np.nan, 1.5, [0.1, 2.0, 0.1]]),
    "deviation": (nf.Noise, [-0.1, np.nan, np.inf, [0.1, -0.1, 0.1], [[0.1]]]),
    "noise": (lambda x: nf.Recipe(noise=x), [-0.1, np.nan, np.inf, [0.1, -0.1, 0.1], [[0.1]]]),
    "clip_example": (lambda x: nf.Recipe(clip_example=x), [-0.1, np.nan, 0.0]),
    "clip_microbatch": (lambda x: nf.Recipe(clip_microbatch=x), [(2, -0.1), (2, np.nan), (0, 0.1), 0.1]),
    "first": (lambda x: nf.Threshold(as_large_as_the_norm, settings={"first": x}), [-0.1, np.nan, 0.0]),
    "second": (
        lambda x: nf.Threshold(as_large_as_the_norm, settings={"second": x}, limits={"second": (1.0, 2.0)}),
        [0.9, 2.1, [1.5, 2.1, 1.5]],
    ),
}


@sim
@pytest.mark.parametrize("what", WRONG_NUMBERS)
def test_a_number_out_of_range_is_refused_as_the_record_is_made(what):
    make, wrong = WRONG_NUMBERS[what]
    name = what.split()[0]
    for value in wrong:
        refuse(make, value, name="size" if value == (0, 0.1) else name)


@sim
def test_a_rule_a_threshold_a_penalty_and_a_policy_are_looked_for_as_the_record_is_made():
    refuse(nf.Clip, "nrm", 1.0, name="rule")
    refuse(nf.Clip, "norm", "percentil", name="threshold")
    refuse(nf.Flow, "nrm", 1.0, name="penalty")
    refuse(nf.ExampleClip, 1.0, "skp", name="nonfinite")
    refuse(nf.MicrobatchClip, 2, 1.0, "random", name="nonfinite")
    refuse(nf.Recipe, clip_example=1.0, clip_microbatch=(2, 1.0), name="clip_example")


@sim
@pytest.mark.parametrize("optimizer", nf.names("optimizers"))
def test_every_setting_of_an_optimizer_has_limits_and_is_refused_beyond_them(optimizer):
    found = load("optimizers", optimizer)
    assert set(found.limits) == set(found.settings)
    for name, (least, below) in found.limits.items():
        wrong = [below, -1e-9, -5.0, np.nan, *([0.0] if least is None else []), *([5.0] if below == 1 else [])]
        for value in wrong:
            refuse(nf.Recipe, optimizer=optimizer, settings={name: value}, name=name)
        if least is not None:
            nf.Recipe(optimizer=optimizer, settings={name: least})


@sim
def test_limits_of_an_optimizer_of_ones_own_are_pairs_of_numbers_which_its_settings_keep():
    given = {"slots": (), "update": load("optimizers", "sgd").update, "settings": {"rate": 0.5}}
    for limits in ({"other": (0.0, 1.0)}, {"rate": 1.0}, {"rate": (0.0, None)}, {"rate": (0.0, "1")}, [0.0, 1.0],
                   {"rate": (0.0, 0.5)}, {"rate": (0.6, 1.0)}):  # fmt: skip
        refuse(nf.Optimizer, **given, limits=limits, name="Optimizer")
    assert nf.Optimizer(**given, limits={"rate": (None, 1.0)}).limits == {"rate": (None, 1.0)}


@pytest.mark.parametrize("threshold", [1e-60, 1e60, np.inf])
def test_a_threshold_that_float32_cannot_hold_is_refused_or_means_what_it_says(threshold):
    case = make_case("tanh", dtype="float32")
    try:
        done = nf.clip(case.net, case.theta, nf.Clip("norm", threshold))
    except ValueError as error:
        assert_clear(error, "threshold")
    else:
        assert done.clipped_norm == near(min(threshold, done.norm), "float32")


@pytest.mark.parametrize("bound", [1e-60, 1e60])
def test_a_bound_that_float32_cannot_hold_is_refused_or_means_what_it_says(bound):
    # The first sequence has no weight at all, so its delta is 0 and must not be counted.
    case = make_case("tanh", when="ragged", dtype="float32")
    try:
        out = nf.gradient(case.net, case.theta, case.batch, flow=nf.Flow("norm", 1.0, bound=bound))
    except ValueError as error:
        assert_clear(error, "bound")
    else:
        assert np.isfinite(out.omega)
        assert np.isfinite(out.d_theta).all()
        assert (out.counted == 0) == (bound > 1)


@pytest.mark.parametrize("value", [1e60])
@pytest.mark.parametrize("name", ["alpha", "lr"])
def test_a_weight_that_float32_cannot_hold_is_refused(name, value):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4, dtype="float32")
    if name == "alpha":
        refuse(nf.gradient, case.net, case.theta, case.batch, flow=nf.Flow("norm", value), name="alpha")
    else:
        recipe = nf.Recipe(lr=value, max_updates=1, evaluate_every=0, lengths=10)
        refuse(nf.train, case.net, case.theta, "temporal_order", recipe, name="lr")


@sim
@pytest.mark.parametrize("value", NOT_NAMES, ids=as_id)
def test_a_name_that_is_none_is_refused(value):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    task, flow, call = nf.load_task("temporal_order"), nf.Flow("norm", 1.0), (case.net, case.theta)
    for name in ("cell", "loss"):
        refuse(nf.Network, **{"cell": "tanh", "n_in": 2, "n_hidden": 2, "n_out": 2, name: value}, name=name)
    refuse(nf.init, case.net, value, name="scheme")
    refuse(nf.init, case.net, "smart_tanh", connections=value, name="connections")
    refuse(nf.load_task, value, name="task")
    refuse(nf.evaluate, *call, value, length=10, name="task")
    refuse(nf.train, *call, value, nf.Recipe(), name="task")
    refuse(nf.Recipe, optimizer=value, name="optimizer")
    refuse(task.sample, seed=0, index=0, batch_size=1, length=10, stream=value, name="stream")
    refuse(lambda: nf.clip(*call, nf.Clip(value, 1.0)), name="rule")
    refuse(nf.Clip, "norm", 1.0, nonfinite=value, name="nonfinite")
    for name in ("penalty", "derivative", "reduction"):
        refuse(
            lambda name=name: nf.gradient(*call, case.batch, flow=dataclasses.replace(flow, **{name: value})), name=name
        )


@sim
@pytest.mark.parametrize("value", ["nope", "", None, 3, ["cells"], "train", "cpu"], ids=as_id)
def test_names_of_what_is_no_package_of_names_are_refused(value):
    refuse(nf.names, value, name="package")


@sim
@pytest.mark.parametrize(
    "value", ["int32", "float16", "longdouble", ">f4", "f4,f4", "f4,(", "", None, 3, bool, complex, [1]], ids=as_id
)
def test_a_dtype_other_than_the_two_is_refused(value):
    refuse(nf.Network, "tanh", 2, 2, 2, dtype=value, name="dtype")
    task = nf.load_task("temporal_order")
    refuse(task.sample, seed=0, index=0, batch_size=1, length=10, dtype=value, name="dtype")


@sim
@pytest.mark.parametrize("dtype", ["float32", np.float32, np.dtype("float32"), "f4", "<f4", "single"], ids=as_id)
def test_every_way_of_writing_a_dtype_is_the_same_network(dtype):
    assert nf.Network("tanh", 2, 3, 1, dtype=dtype) == nf.Network("tanh", 2, 3, 1)


@sim
@pytest.mark.parametrize("backend", ["gpu", "", None, 3, ["cpu"], np.array(["cpu", "cuda"])], ids=as_id)
def test_a_backend_that_is_not_there_is_one_clear_error(backend):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    refuse(nf.gradient, case.net, case.theta, case.batch, backend=backend, name="backend")
    refuse(nf.trace, case.net, case.theta, case.batch, backend=backend, name="backend")
    refuse(nf.predict, case.net, case.theta, case.batch.inputs, backend=backend, name="backend")
    refuse(nf.clip, case.net, case.theta, nf.Clip("norm", 1.0), backend=backend, name="backend")
    refuse(nf.train, case.net, case.theta, "temporal_order", nf.Recipe(), backend=backend, name="backend")


@sim
@pytest.mark.parametrize("derivative", ["detached", "exact"])
def test_a_derivative_that_needs_the_whole_tape_is_refused_with_recompute_every(derivative):
    case = make_case("tanh")
    flow = nf.Flow("norm", 1.0, derivative=derivative)
    refuse(nf.gradient, case.net, case.theta, case.batch, flow=flow, recompute_every=64, name="recompute_every")


@sim
@pytest.mark.parametrize("rng", ["abc", -1, 1.5, True, [1, -2], object()], ids=as_id)
def test_what_is_no_source_of_random_numbers_is_refused(rng):
    case = make_case("tanh")
    refuse(nf.init, case.net, "orthogonal", rng=rng, name="rng")
    refuse(nf.clip, case.net, case.theta, nf.Clip("norm", 1.0), rng=rng, name="rng")
    refuse(nf.clip, case.net, np.full_like(case.theta, np.nan), nf.Clip("norm", 1.0), rng=rng, name="rng")


# --- Records of settings.


@sim
@pytest.mark.parametrize("value", ["norm", 1.0, True, {}, ("norm", 1.0), nf.Clip, nf.Flow], ids=as_id)
def test_what_is_no_record_of_settings_is_refused(value):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)
    call = (case.net, case.theta)
    refuse(nf.gradient, *call, case.batch, flow=value, name="flow")
    refuse(nf.clip, *call, value, name="clip")
    refuse(nf.train, *call, "temporal_order", value, name="recipe")
    refuse(nf.Recipe, clip=value, name="clip")
    refuse(nf.Recipe, flow=value, name="flow")


@sim
@pytest.mark.parametrize(
    "settings",
    [
        {"momentum": "x"},
        {"momentum": None},
        {"momentum": np.nan},
        {"nope": 1.0},
        {3: 1.0},
        None,
        3,
        ["momentum"],
    ],
    ids=as_id,
)
def test_settings_of_an_optimizer_that_make_no_sense_are_refused(settings):
    refuse(nf.Recipe, optimizer="momentum", settings=settings, name="settings")


@sim
@pytest.mark.parametrize("callbacks", [print, 3, "abc", [3], [None]], ids=as_id)
def test_what_is_no_sequence_of_callbacks_is_refused_before_the_first_update(callbacks):
    case = make_case("tanh", "softmax", "tokens", N=6, M=4)

    def source(update):
        raise AssertionError("the first update has begun")

    refuse(nf.train, case.net, case.theta, source, nf.Recipe(evaluate_every=0), callbacks=callbacks, name="callbacks")


# --- Lengths.


@sim
@pytest.mark.parametrize("task", nf.names("tasks"))
@pytest.mark.parametrize("length", [1, 5, 9])
def test_a_length_that_is_too_short_for_the_task_is_refused(task, length):
    task = nf.load_task(task)
    net = nf.Network("tanh", task.n_in, 3, task.n_out, loss=task.loss)
    theta = nf.init(net, "smart_tanh", rng=0)
    refuse(task.sample, seed=0, index=0, batch_size=1, length=length, name="length")
    refuse(nf.evaluate, net, theta, task, length=length, size=1, name="length")
    refuse(nf.evaluate, net, theta, task, length=(length, 20), size=1, name="length")
    for evaluate_every in (0, 1):
        recipe = nf.Recipe(lengths=(length, 10), evaluate_every=evaluate_every, max_updates=1, evaluate_size=1)
        refuse(nf.train, net, theta, task, recipe, name="lengths")


@sim
@pytest.mark.parametrize(
    "lengths", [(20, 19), (10,), (10, 20, 30), (10, "x"), (10, 20.5), "ab", None, 1.5, (None, None)], ids=as_id
)
def test_a_range_of_lengths_that_makes_no_sense_is_refused(lengths):
    task = nf.load_task("temporal_order")
    net = nf.Network("tanh", task.n_in, 3, task.n_out)
    theta = nf.init(net, "smart_tanh", rng=0)
    refuse(nf.evaluate, net, theta, task, length=lengths, size=1, name="length")
    refuse(nf.Recipe, lengths=lengths, name="lengths")


@sim
def test_numpy_integers_count_as_integers_everywhere():
    ten, task = np.int64(10), nf.load_task("temporal_order")
    net = nf.Network("tanh", np.int32(task.n_in), np.uint8(3), np.int64(task.n_out))
    theta = nf.init(net, "smart_tanh", rng=np.int64(0), replicas=np.int64(1))[0]
    task.sample(seed=np.int64(0), index=np.uint32(0), batch_size=np.int8(1), length=ten)
    assert nf.evaluate(net, theta, task, length=ten, size=np.int64(3)) == nf.evaluate(
        net, theta, task, length=10, size=3
    )
    recipe = nf.Recipe(lengths=ten, max_updates=np.int64(1), evaluate_every=np.int64(0), batch_size=np.int64(2))
    assert nf.train(net, theta, task, recipe, seed=np.int64(0)).updates == 1


@sim
def test_a_task_that_does_not_fit_the_network_is_refused():
    net = nf.Network("tanh", 2, 3, 1, loss="square")
    theta = nf.init(net, "smart_tanh", rng=0)
    refuse(nf.train, net, theta, "temporal_order", nf.Recipe(), name="net")
    refuse(nf.evaluate, net, theta, "temporal_order", length=10, name="net")


@sim
@pytest.mark.parametrize(
    "y",
    [
        None,
        3,
        "abc",
        np.zeros((10, 2, 3)),
        np.zeros((9, 2, 4)),
        np.zeros((10, 2, 4)).tolist(),
        np.zeros((10, 2, 4), "U1"),
    ],
    ids=as_id,
)
def test_wrong_refuses_what_are_no_outputs(y):
    task = nf.load_task("temporal_order")
    refuse(task.wrong, y, task.sample(seed=0, index=0, batch_size=2, length=10), name="y")


@sim
@pytest.mark.parametrize("batch", [None, 3, (1, 2)], ids=as_id)
def test_wrong_refuses_what_is_no_batch(batch):
    refuse(nf.load_task("temporal_order").wrong, np.zeros((10, 2, 4)), batch, name="batch")


# --- What is accepted.


def layouts(a):
    """Return the same numbers in other memory: read-only, Fortran order, strides, negative strides, unaligned."""
    readonly = a.copy()
    readonly.flags.writeable = False
    spread = np.zeros([2 * n for n in a.shape], a.dtype)[(..., *(slice(None, None, 2) for _ in a.shape))]
    spread[...] = a
    backwards = np.flip(np.flip(a).copy())
    unaligned = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    unaligned[...] = a
    return {
        "read-only": readonly,
        "Fortran": np.asfortranarray(a),
        "spread": spread,
        "backwards": backwards,
        "unaligned": unaligned,
    }


@sim
@pytest.mark.parametrize("layout", ["read-only", "Fortran", "spread", "backwards", "unaligned"])
@pytest.mark.parametrize(("kind", "loss"), [("dense", "square"), ("tokens", "softmax")])
def test_how_an_array_lies_in_memory_changes_no_bit(layout, kind, loss):
    net, theta, batch, state, _ = make_replicas(
        "tanh", R=2, loss=loss, kind=kind, T=3, B=2, when="all", dtype="float32"
    )
    flow, how = nf.Flow("norm", 0.5), nf.Clip("norm", 0.1)
    other = [layouts(a)[layout] for a in (theta, *batch, state)]
    before = state_of(other)
    found = nf.gradient(net, other[0], nf.Batch(*other[1:4]), state=other[4], flow=flow)
    wanted = nf.gradient(net, theta, batch, state=state, flow=flow)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(nf.trace(net, other[0], nf.Batch(*other[1:4])), nf.trace(net, theta, batch), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(nf.predict(net, other[0], other[1]), nf.predict(net, theta, batch.inputs))
    clipped = nf.clip(net, other[0], how, theta=other[0])
    np.testing.assert_array_equal(clipped.d_theta, nf.clip(net, theta, how).d_theta)
    assert state_of(other) == before


@sim
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">u8"]
)
def test_tokens_and_classes_come_in_any_integer_type(dtype):
    case = make_case("tanh", "softmax", "tokens", "all", T=3, B=2, N=5, dtype="float32")
    inputs, targets, weights = case.batch
    batch = nf.Batch(inputs.astype(dtype), targets.astype(dtype), weights)
    found, wanted = nf.gradient(case.net, case.theta, batch), nf.gradient(case.net, case.theta, case.batch)
    np.testing.assert_array_equal(found.d_theta, wanted.d_theta)


@sim
def test_one_batch_broadcast_to_replicas_is_accepted():
    case = make_case("tanh", T=3, B=2, when="all", dtype="float32")
    theta = np.stack([case.theta] * 3)
    batch = nf.Batch(*(np.broadcast_to(a, (3, *a.shape)) for a in case.batch))
    found, wanted = nf.gradient(case.net, theta, batch), nf.gradient(case.net, case.theta, case.batch)
    assert found.loss.tolist() == [wanted.loss] * 3
    for row in found.d_theta:
        np.testing.assert_array_equal(row, wanted.d_theta)


@sim
def test_a_memory_map_is_an_array(tmp_path):
    case = make_case("tanh", T=3, B=2, when="all", dtype="float32")
    case.theta.tofile(tmp_path / "theta")
    theta = np.memmap(tmp_path / "theta", np.float32, "r")
    found, wanted = nf.gradient(case.net, theta, case.batch), nf.gradient(case.net, case.theta, case.batch)
    np.testing.assert_array_equal(found.d_theta, wanted.d_theta)


@sim
def test_results_own_their_memory_and_outlive_the_next_call():
    choices = {"R": 2, "T": 3, "B": 2, "loss": "square", "kind": "dense", "when": "all", "dtype": "float32"}
    net, theta, batch, state, _ = make_replicas("tanh", **choices)
    flow = nf.Flow("norm", 0.5)
    space = nf.workspace(net, batch)
    first = nf.gradient(net, theta, batch, workspace=space, state=state, flow=flow)
    seen = nf.trace(net, theta, batch, workspace=space)
    y = nf.predict(net, theta, batch.inputs, workspace=space)
    kept = [np.copy(a) for a in arrays_in([first, seen, y])]
    assert len(kept) == 11
    other = 1 + theta
    nf.gradient(net, other, batch, workspace=space, state=-state, flow=flow)
    nf.trace(net, other, batch, workspace=space)
    nf.predict(net, other, -batch.inputs, workspace=space)
    for a, b in zip(arrays_in([first, seen, y]), kept, strict=True):
        assert a.flags.writeable
        np.testing.assert_array_equal(a, b)


# --- Anything at all: a clear error, or a result of the right shape; the arguments as they were, byte for byte.

FUZZ_DTYPES = [
    "float32",
    "float64",
    "float16",
    ">f4",
    "int32",
    "int64",
    "uint8",
    ">i8",
    "bool",
    "complex64",
    "object",
    "U1",
]


@st.composite
def memory(draw, shape, dtype, low=0, high=1):
    """Draw an array of a shape and a dtype, lying in memory in any way."""
    numbers = np.array(draw(st.lists(st.integers(low, high), min_size=1, max_size=7)))
    a = np.resize(numbers, shape).astype(dtype)
    way = draw(st.sampled_from(["plain", "read-only", "Fortran", "spread", "backwards", "unaligned", "broadcast"]))
    if way == "broadcast" and a.ndim and a.shape[0]:
        a = np.broadcast_to(a[0], a.shape)
    elif way == "read-only" or a.dtype.hasobject:
        a.flags.writeable = False
    elif way not in ("plain", "broadcast"):
        a = layouts(a)[way]
    return a


@st.composite
def anything(draw, shape, dtype):
    """Draw an array that is right in most ways."""
    shape = list(shape)
    match draw(st.integers(0, 5)):
        case 0 if shape:
            shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(0, 5))
        case 1:
            shape = draw(st.lists(st.integers(0, 4), max_size=5))
        case 2:
            dtype = draw(st.sampled_from(FUZZ_DTYPES))
        case 3:
            a = draw(memory(shape, "float64", -3, 6))
            a = np.where(
                np.arange(a.size).reshape(a.shape) == draw(st.integers(0, 9)),
                draw(st.sampled_from([np.nan, np.inf, 1e30])),
                a,
            )
            with np.errstate(invalid="ignore"):
                return a.astype(dtype)
    low, high = (-1, 4) if draw(st.integers(0, 5)) == 0 else (0, 1)
    if low < 0 and np.dtype(dtype).kind == "u":
        low = 0
    return draw(memory(shape, dtype, low, high))


@st.composite
def problems(draw):
    """Draw a network, and arguments of which at most some are wrong."""
    net = nf.Network("tanh", draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3)),
                     loss=draw(st.sampled_from(LOSSES)), dtype=draw(st.sampled_from(DTYPES)))  # fmt: skip
    lead = draw(st.sampled_from([(), (1,), (3,)]))
    steps, batch, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.booleans())
    classes, at = net.loss == "softmax", (*lead, steps, batch)
    specs = [
        ((*lead, net.size), net.dtype),
        (at if tokens else (*at, net.n_in), "int64" if tokens else net.dtype),
        (at if classes else (*at, net.n_out), "int64" if classes else net.dtype),
        (at, net.dtype),
        ((*lead, batch, 1, net.n_hidden), net.dtype),
    ]
    wrong = draw(st.sets(st.integers(0, 4), max_size=2))
    arguments = [
        draw(anything(shape, dtype))
        if k in wrong
        else draw(memory(shape, dtype, 0, int(net.n_in > 1 and net.n_out > 1)))
        for k, (shape, dtype) in enumerate(specs)
    ]
    return net, arguments


def clear_or(function, names, *arguments, **keywords):
    """Return the result of a call or None after a clear error; check that it changed no argument."""
    before = state_of((arguments, keywords))
    found = error = None
    try:
        found = function(*arguments, **keywords)
    except (TypeError, ValueError) as caught:
        error = caught
    assert state_of((arguments, keywords)) == before
    if error is not None:
        named = [name for name in names if re.match(rf"{name}\b", str(error))]
        assert named, f"no argument is named: {error}"
        assert_clear(error, named[0])
    return found


@pytest.mark.skipif(not JIT, reason="too slow interpreted")
@given(problems())
def test_any_arrays_give_a_clear_error_or_a_result_of_the_right_shape(problem):
    net, (theta, inputs, targets, weights, state) = problem
    batch = nf.Batch(inputs, targets, weights)
    lead = np.shape(theta)[:-1]
    steps, size = np.shape(inputs)[len(lead) :][:2] if np.ndim(inputs) > len(lead) + 1 else (0, 0)
    out = clear_or(nf.gradient, ARRAYS, net, theta, batch, state=state)
    if out is not None:
        assert out.d_theta.shape == theta.shape
        assert out.d_theta.dtype == net.dtype
        assert np.shape(out.loss) == lead
        assert out.state.shape == (*lead, size, 1, net.n_hidden)
    seen = clear_or(nf.trace, ARRAYS, net, theta, batch)
    if seen is not None:
        assert seen.states.shape == seen.delta.shape == (*lead, steps + 1, size, 1, net.n_hidden)
        assert seen.gain.shape == (*lead, steps, size)
    y = clear_or(nf.predict, ARRAYS, net, theta, inputs)
    if y is not None:
        assert y.shape == (*lead, steps, size, net.n_out)
        assert y.dtype == net.dtype
    clear_or(nf.workspace, ARRAYS, net, batch)
    flat = clear_or(nf.unpack, ARRAYS, net, theta)
    assert flat is None or flat.w_rec.shape == (*lead, net.n_hidden, 1, net.n_hidden)


@pytest.mark.skipif(not JIT, reason="too slow interpreted")
@given(
    problems(),
    st.sampled_from(CLIPS),
    st.one_of(st.floats(), st.lists(st.floats(width=32), max_size=4), st.sampled_from(NOT_NUMBERS)),
    st.sampled_from(["random", "skip", "zero", "shrink", "raise", "keep", "nope", None]),
)
def test_any_clip_gives_a_clear_error_or_a_gradient_of_the_right_shape(problem, rule, threshold, policy):
    net, (d_theta, _, _, _, theta) = problem
    names = ("d_theta", "theta", "threshold", "nonfinite")
    how, done, raised = clear_or(nf.Clip, names, rule, threshold, policy), None, False
    if how is None:
        return
    for other in (theta.reshape(-1), d_theta):
        try:
            done = clear_or(nf.clip, names, net, d_theta, how, theta=other, rng=0)
        except FloatingPointError:
            raised = True
    # Only where it was asked for.
    assert policy == "raise" or not raised
    if done is not None:
        assert done.d_theta.shape == d_theta.shape
        assert done.d_theta.dtype == net.dtype
        assert np.shape(done.norm) == d_theta.shape[:-1]
