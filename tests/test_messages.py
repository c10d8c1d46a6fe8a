"""Claims about messages: whatever comes in, a message has a few lines, and names what would be right for what came."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import nbflow as nf
import nbflow.statistics
from nbflow import _check

LONGEST = 400
ROOT = Path(__file__).parents[1]


class Wide:
    def __repr__(self):
        return "x" * 1_000_000


class Mute:
    def __repr__(self):
        raise RuntimeError("I am nobody")


# Made anew by each test, for some are large.
HUGE = {
    "a long list": lambda: [str(k) for k in range(10_000)],
    "a long string": lambda: "x" * 1_000_000,
    "a large array": lambda: np.zeros((300, 300, 3)),
    "a dict of many": lambda: {f"name {k}": k for k in range(10_000)},
    "a deep list": lambda: [[["x" * 1000] * 1000]],
    "an object with a long name": Wide,
    "an object without a name": Mute,
    "an endless integer": lambda: 10**6000,
    "a bottomless integer": lambda: -(10**6000),
}
NET = nf.Network("tanh", n_in=3, n_hidden=4, n_out=2, dtype="float64")
THETA = np.zeros(NET.size)
BATCH = nf.Batch(np.zeros((5, 2, 3)), np.zeros((5, 2), int), np.ones((5, 2)))
# What is right, by the names of parameters; the others stand at what they are by themselves, or at None.
RIGHT = {
    "net": NET, "theta": THETA, "batch": BATCH, "inputs": BATCH.inputs, "d_theta": THETA, "params": (),
    "clip": nf.Clip("norm", 1.0), "recipe": nf.Recipe(), "task": "temporal_order",
}  # fmt: skip


def functions():
    """Return every public function and class of which an object is made, by its name."""
    found = {name: getattr(nf, name) for name in nf.__all__}
    found |= {f"statistics.{name}": one for name, one in vars(nbflow.statistics).items() if inspect.isfunction(one)}
    return {
        name: one for name, one in found.items()
        if callable(one) and getattr(one, "__module__", "").startswith("nbflow") and name.split(".")[-1][0] != "_"
    }  # fmt: skip


def calls():
    for name, function in functions().items():
        if name.endswith("unit") or (isinstance(function, type) and issubclass(function, tuple)):
            continue
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                yield name, parameter.name


def words_of(function, positional, keywords):
    """Return the message with which a call is refused, nothing if it is not."""
    try:
        function(*positional, **keywords)
    except Exception as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "parameter"), [*calls()], ids=lambda one: one)
def test_no_message_prints_data(name, parameter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = functions()[name]
    for kind, make in HUGE.items():
        keywords = {
            one.name: RIGHT.get(one.name)
            for one in inspect.signature(function).parameters.values()
            if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        } | {parameter: make()}
        positional = [
            keywords.pop(one.name)
            for one in inspect.signature(function).parameters.values()
            if one.kind == one.POSITIONAL_ONLY
        ]
        said = words_of(function, positional, keywords)
        assert len(said) <= LONGEST, f"{kind}: {said[:300]}"
        assert "nobody" not in said, kind


@pytest.mark.parametrize("kind", HUGE)
def test_what_a_message_says_of_a_value_fits_half_a_line(kind):
    said = _check.said(HUGE[kind]())
    assert 3 < len(said) <= 60
    assert "\n" not in said


def values_written_out(text: str) -> list[str]:
    """Return what f-strings write out by `!r`: not paths, nor what is cut off, nor a name that Python asks for."""
    tree = ast.parse(text)
    asked = {id(node) for function in ast.walk(tree) if getattr(function, "name", "") == "__getattr__"
             for node in ast.walk(function)}  # fmt: skip
    found = [ast.unparse(node.value) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue)
             and node.conversion == ord("r") and node.format_spec is None and id(node) not in asked]  # fmt: skip
    return [value for value in found if not value.startswith("str(")]


@pytest.mark.parametrize("folder", ["nbflow", "scripts"])
def test_no_message_writes_out_a_value_however_long_it_is(folder):
    # `_check.said` says its type and length instead.
    found = {path: values_written_out(path.read_text()) for path in (ROOT / folder).glob("**/*.py")}
    assert len(found) > 20
    assert not {path: values for path, values in found.items() if values}


def test_a_value_that_is_written_out_is_found():
    assert values_written_out('raise ValueError(f"lr is {lr!r} of {str(path)!r}")') == ["lr"]
    assert values_written_out("def __getattr__(name):\n    raise AttributeError(f'no {name!r}')") == []


def test_options_are_refused_where_they_are_given():
    with pytest.raises(ValueError, match="optimizer is 'adamw'; expected one of adam, momentum, rmsprop, sgd"):
        nf.Recipe(optimizer="adamw")
    with pytest.raises(ValueError, match=r"settings has .'beta1'.; .*Write beta_1"):
        nf.Recipe(optimizer="adam", settings={"beta1": 0.9})
    with pytest.raises(ValueError, match=r"settings\['beta_1'\] is 5.*The usual one is 0.9"):
        nf.Recipe(optimizer="adam", settings={"beta_1": 5.0})


X, CLASSES, ONES = BATCH
REMEDIES = {
    "a batch for inputs": (lambda: nf.predict(NET, THETA, BATCH), r"Write batch\.inputs"),
    "one class a sequence": (
        lambda: nf.gradient(NET, THETA, nf.Batch(X, CLASSES[0], ONES)), r"counts at its last step: .*weight 0",
    ),
    "lengths": (
        lambda: nf.gradient(NET, THETA, nf.Batch(X, CLASSES, np.array([3, 5]))),
        r"\(np\.arange\(5\)\[:, None\] < lengths\)",
    ),
    "padding": (
        lambda: nf.gradient(NET, THETA, nf.Batch(X, np.full((5, 2), -100), ONES)),
        r"without a class \(-100, say\) weight 0",
    ),
    "padding of inputs": (lambda: nf.gradient(NET, THETA, nf.Batch(X * np.nan, CLASSES, ONES)), r"and have weight 0"),
    "sequences first": (
        lambda: nf.gradient(NET, THETA, nf.Batch(X, CLASSES.T, ONES)), r"Steps come first: targets\.swapaxes\(0, 1\)",
    ),
    "sequences first in inputs": (
        lambda: nf.gradient(NET, THETA, nf.Batch(X.swapaxes(0, 1), CLASSES, ONES)), r"Steps come first",
    ),
    "one of each class": (
        lambda: nf.gradient(NET, THETA, nf.Batch(X, np.zeros((5, 2, 2), int), ONES)), r"targets\.argmax\(axis=-1\)",
    ),
    "batches of a function": (
        lambda: nf.evaluate(NET, THETA, lambda update: BATCH),
        "expected a name or a Task, of which",
    ),
    "ids without an axis": (lambda: nf.init(NET, "smart_tanh", rng=0, replica_ids=np.array(0)), "replica_ids is array"),
    "too many replicas": (lambda: nf.init(NET, "smart_tanh", rng=0, replicas=2**40), "replicas is .*at most 2.*24"),
    "a flag for a seed": (lambda: nf.init(NET, "smart_tanh", rng=True), "rng is True"),
    "ragged blocks": (
        lambda: nf.pack(NET, nf.unpack(NET, THETA)._replace(b_out=[[1, 2], [3]])),
        "b_out is a list; expected a NumPy array",
    ),
    "a number for a function": (
        lambda: nf.clipping_bias(NET, THETA, [BATCH] * 3, {"a": nf.Clip("norm", 1.0)}, show=3),
        "show is 3; expected a fun",
    ),
    "a letter for a part": (lambda: nf.norm_quantiles(NET, THETA, [BATCH] * 3, "a"), "q is 'a'; expected numbers"),
    "a size that is none": (
        lambda: nf.gradient(NET, THETA, BATCH, clip_microbatch=(2.0, 1)),
        r"size of clip_microbatch is 2\.0; expected an int",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REMEDIES)
def test_a_remedy_fits_what_came(what):
    call, said = REMEDIES[what]
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        call()
    assert len(str(caught.value)) <= LONGEST


def test_numbers_of_numpy_in_a_row_of_a_store_are_refused_with_the_call_that_converts_them(tmp_path):
    with pytest.raises(TypeError, match=r"row 'a': x is a int64; expected a number.*Convert it: .*int"):
        nf.Store(tmp_path / "runs.jsonl").add([{"key": "a", "x": np.int64(3)}])
