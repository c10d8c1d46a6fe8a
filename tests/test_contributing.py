"""Claims about CONTRIBUTING.md: each file that its recipes show is one that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tolerance import within

import nbflow as nf

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
# By what they declare.
FILES = {re.search(r"^[A-Z]+ = (\w+)\(", block, re.MULTILINE)[1]: block for block in BLOCKS}


def test_every_recipe_with_code_is_tried_here():
    assert len(FILES) == len(BLOCKS)
    assert set(FILES) == {"Cell", "Rule", "StatefulRule", "Threshold"}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_a_recipe_shows_works(kind):
    names = {"__name__": "recipe"}
    exec(compile(FILES[kind], f"{kind}.py", "exec"), names)
    task = nf.load_task("temporal_order")
    net = nf.Network(names.get("CELL", "tanh"), task.n_in, 8, task.n_out, task.loss, dtype="float64")
    theta = nf.init(net, "glorot", rng=0)
    if kind == "Cell":
        batch = task.sample(seed=0, index=0, batch_size=4, length=10, dtype="float64")
        assert nf.check_gradient(net, theta, batch).error_complex < within("float64", steps=10, terms=8 * 4)
    else:
        clip = nf.Clip("norm", names["THRESHOLD"]) if kind == "Threshold" else nf.Clip(names["RULE"], 1e-3)
        recipe = nf.Recipe(lr=0.01, lengths=10, clip=clip, max_updates=5, record_every=1, evaluate_every=0)
        run = nf.train(net, theta, task, recipe)
        if kind == "Threshold":
            assert run.history["threshold"] == [1.0, *(2.0 * norm for norm in run.history["norm"][:-1])]
        else:
            assert max(run.history["clipped"]) > 0
