"""Claims about messages: whatever comes in, a message has a few lines, and names what would be right for what came."""

import inspect

import numpy as np
import pytest

import nbflow as nf
import nbflow.statistics
from nbflow import _check

LONGEST = 400


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


def test_options_are_refused_where_they_are_given():
    with pytest.raises(ValueError, match="optimizer is 'adamw'; expected one of adam, momentum, rmsprop, sgd"):
        nf.Recipe(optimizer="adamw")
    with pytest.raises(ValueError, match=r"settings has .'beta1'.; .*Write beta_1"):
        nf.Recipe(optimizer="adam", settings={"beta1": 0.9})
    with pytest.raises(ValueError, match=r"settings\['beta_1'\] is 5.*The usual one is 0.9"):
        nf.Recipe(optimizer="adam", settings={"beta_1": 5.0})
