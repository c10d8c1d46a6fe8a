"""Claims about the columns of a sweep: what differs between two settings is told apart in the column of its field."""

import dataclasses
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nbflow as nf
from nbflow.data.text import Text
from nbflow.experiments.experiment import Experiment, check_experiments
from nbflow.scalars import ONE

RECIPE = nf.Recipe(lengths=10, max_updates=20, evaluate_every=10, evaluate_size=50)
BASE = nf.Experiment("temporal_order", RECIPE, n_hidden=8)


@nf.unit
def soft(g, norm, threshold):
    return g / (ONE + norm / threshold)


@nf.unit
def hard(g, norm, threshold):
    return g * threshold


@nf.unit
def value(q):
    return (q - ONE) * (q - ONE)


@nf.unit
def slope(q):
    return q - ONE


@nf.unit
def of_states(n, before):
    return n - before


@nf.unit
def slope_of_states(n, before):
    return ONE, -ONE


@nf.unit
def step(a_in, a_rec, s):
    return (a_in[0] + a_rec[0],), ()


@nf.unit
def descend(theta, d, slots, lr, settings, n):
    return theta - lr * d * settings[0], slots


@nf.exact_unit
def told(norm, memory, settings, update):
    return settings[0]


@nf.unit
def upwards(w):
    return max(w, -w)


@nf.unit
def downwards(w):
    return min(w, -w)


def nothing(net, theta, batch):
    return 0.0, np.zeros_like(theta)


def falling(update):
    return 0.1 / (1 + update)


@dataclasses.dataclass(frozen=True)
class Falling:
    start: float
    half: int = 10

    def __call__(self, update):
        return self.start * 0.5 ** (update / self.half)


@dataclasses.dataclass(frozen=True)
class Constant:
    start: float
    half: int = 10

    def __call__(self, update):
        return self.start


def text(seed, words="abcde"):
    return Text((np.arange(1000, dtype=np.int32) + seed) % 5, tuple(words)).task(held_out=0.2)


TASK = nf.load_task("temporal_order")
CELL = nf.Cell(gates=("a",), states=("h",), step=step)
OWN = nf.Rule(over="all", clip=soft)
SCHEDULES = [falling, Falling(0.1), Falling(0.2), Falling(0.1, half=20), Constant(0.1)]
# For each field of an experiment, settings of which no two are the same: names, numbers, records of one's own.
DIFFERENT = {
    "task": [
        "temporal_order", "copy", TASK, dataclasses.replace(TASK, shortest=11), text(0), text(1), text(0, "abcdf"),
    ],
    "cell": [
        "tanh", "relu", CELL, dataclasses.replace(CELL, ranges=((-9.0, 9.0),)),
        dataclasses.replace(CELL, states=("x",)),
    ],
    "n_hidden": [8, 9],
    "init": ["smart_tanh", "orthogonal"],
    "init_options": [{}, {"scale": 0.5}, {"scale": 0.6}],
    "dtype": ["float32", "float64"],
    "recipe.optimizer": [
        "sgd", nf.Optimizer((), descend, {"a": 1.0}), nf.Optimizer((), descend, {"a": 2.0}),
        nf.Optimizer((), descend, {"b": 1.0}),
    ],
    "recipe.lr": [0.1, 0.2, *SCHEDULES],
    "recipe.batch_size": [4, 5],
    "recipe.lengths": [10, (10, 12), (10, 13)],
    "recipe.clip": [
        None, nf.Clip("norm", 1.0), nf.Clip("norm", 2.0), nf.Clip("norm", 1.0, "skip"), nf.Clip("value", 1.0),
        nf.Clip(OWN, 1.0), nf.Clip(nf.Rule(over="all", clip=hard), 1.0), nf.Clip("norm", "zscore"),
        nf.Clip("norm", nf.load_threshold("zscore", decay=0.5)), nf.Clip("norm", falling),
    ],
    "recipe.clip.rule": ["norm", OWN, nf.Rule(over="all", clip=hard), nf.Rule(over="block", clip=soft)],
    "recipe.clip.threshold": [
        1.0, 2.0, "zscore", nf.load_threshold("zscore", decay=0.5), nf.load_threshold("zscore", decay=0.6),
        nf.Threshold(value=told, settings={"a": 1.0}), nf.Threshold(value=told, settings={"a": 2.0}), *SCHEDULES,
    ],
    "recipe.flow": [None, nf.Flow("norm", 1.0), nf.Flow("norm", 2.0), nf.Flow("norm", 1.0, "exact")],
    "recipe.flow.penalty": [
        "norm", "squared", nf.Penalty(value, slope), nf.Penalty(slope, value), nf.Penalty(value, value),
        nf.StatePenalty(of_states, slope_of_states), nf.Regularizer(nothing),
    ],
    "recipe.flow.alpha": [1.0, *SCHEDULES],
    "recipe.clip_hidden": [None, nf.HiddenClip(1.0), nf.HiddenClip(2.0), nf.HiddenClip(1.0, "state")],
    "recipe.clip_example": [None, 1.0, 2.0],
    "recipe.clip_microbatch": [None, (2, 1.0), (2, 2.0)],
    "recipe.h_detach": [None, nf.HDetach(0.5), nf.HDetach(0.6)],
    "recipe.noise": [None, 0.1, 0.2, *SCHEDULES],
    "recipe.max_updates": [20, 30],
    "recipe.record_every": [10, 20],
    "recipe.evaluate_every": [10, 20],
    "recipe.evaluate_size": [50, 60],
    "recipe.solved_below": [0.01, 0.02],
    "recipe.stop_when_solved": [False, True],
    "recipe.settings": [{}, {"momentum": 0.5}, {"momentum": 0.6}],
    "recipe.carry": [False, True],
    "recipe.trainable": [None, {"w_rec": False}, {"w_in": False}, np.eye(1, 9, dtype=bool)[0], np.ones(9, bool)],
    "recipe.project": [None, falling, nothing, {"w_rec": upwards}, {"w_rec": downwards}, {"w_in": downwards}],
}  # fmt: skip


def changed(name, one):
    """Return the experiment that is made, whatever else has to be there for it."""
    base = BASE
    if name.startswith("recipe.clip."):
        base = nf.grid(BASE, {"recipe.clip": [nf.Clip("norm", 1.0)]})[0]
    if name.startswith("recipe.flow."):
        base = nf.grid(BASE, {"recipe.flow": [nf.Flow("norm", 1.0)]})[0]
    if name == "recipe.carry":
        text = nf.data.Text(np.arange(100, dtype=np.int32) % 3, tuple("abc"))
        base = nf.grid(BASE, {"task": [text.task()]})[0]
    if name == "recipe.settings":
        base = nf.grid(BASE, {"recipe.optimizer": ["momentum"]})[0]
    return nf.grid(base, {name: [one]})[0]


def test_every_field_of_a_setting_is_tried():
    fields = {field.name for field in dataclasses.fields(Experiment)} - {"recipe"}
    fields |= {f"recipe.{field.name}" for field in dataclasses.fields(nf.Recipe)}
    assert fields <= DIFFERENT.keys()


@pytest.mark.parametrize("name", DIFFERENT)
def test_two_settings_that_differ_in_a_field_differ_in_its_column(name):
    rows = [changed(name, one).flat for one in DIFFERENT[name]]
    for one, two in itertools.combinations(rows, 2):
        assert json.dumps(one[name]) != json.dumps(two[name])
    assert not any(isinstance(row[name], dict) for row in rows)


def test_a_record_has_its_name_in_its_column_and_its_fields_beside_it():
    own = changed("recipe.clip", nf.Clip(OWN, 0.5, "skip")).flat
    rule = f"Rule(over=all, clip={__name__}.soft)"
    assert own["recipe.clip"] == f"Clip(rule={rule}, threshold=0.5, nonfinite=skip)"
    assert (own["recipe.clip.rule"], own["recipe.clip.rule.over"]) == (rule, "all")
    assert own["recipe.clip.threshold"] == 0.5
    assert changed("recipe.lr", Falling(0.1)).flat["recipe.lr"] == f"{__name__}.Falling(start=0.1)"
    assert changed("recipe.settings", {"momentum": 0.5}).flat["recipe.settings"] == "{momentum=0.5}"
    assert changed("cell", CELL).flat["cell"] == f"Cell(gates=(a), states=(h), step={__name__}.step)"


def test_names_are_short_however_long_what_they_stand_for_is_and_stay_apart():
    names = [Falling(start=0.1), Falling(start=0.2)]
    long = [nf.grid(BASE, {"init_options": [{f"name_{k}": 0.5 for k in range(99)} | {"last": n}]})[0] for n in (1, 2)]
    columns = [one.flat["init_options"] for one in long]
    assert columns[0] != columns[1]
    assert max(map(len, columns)) <= 200
    assert names[0] != names[1]


def test_two_functions_of_one_name_are_not_taken_for_one():
    def made(factor):
        def clip(g, norm, threshold):
            return g * factor

        clip.__qualname__ = "clip"
        return nf.Rule(over="entry", clip=nf.unit(clip))

    many = nf.grid(BASE, {"recipe.clip": [nf.Clip(made(0.5), 1.0), nf.Clip(made(0.25), 1.0)]})
    with pytest.raises(ValueError, match=r"recipe.clip.rule.clip has two functions called .*clip"):
        check_experiments(many)
    assert check_experiments([many[0], many[0]])


@pytest.mark.parametrize("read", ["runs", "file"])
def test_pandas_groups_settings_of_ones_own_as_they_differ(tmp_path, read):
    pandas = pytest.importorskip("pandas")
    clips = [None, nf.Clip("norm", 1.0), nf.Clip(OWN, 1.0), nf.Clip(nf.Rule(over="all", clip=hard), 1.0)]
    path = tmp_path / "runs.jsonl"
    with ThreadPoolExecutor(1) as executor:
        done = nf.sweep(nf.grid(BASE, {"recipe.clip": clips}), 2, path, executor=executor, progress=False)
    frame = pandas.DataFrame(done.runs) if read == "runs" else pandas.read_json(path, lines=True)
    for column in ("recipe.clip", "recipe.clip.rule"):
        assert frame.groupby(column, dropna=False).size().tolist() == [2, 2, 2, 2]
