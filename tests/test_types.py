"""Claims about the typed door: mypy --strict sees what users' files take from nbflow, and finds what is wrong."""

import re
from pathlib import Path

from mypy import api as mypy

README = Path(__file__).parents[1] / "README.md"

# A mistake a line, with a word of what mypy says of it.
MISTAKES = """\
import nbflow as nf
import nbflow.data
task = nf.load_task(3)                                          # load_task
net = nf.Network("tanh", 6, 50, n_ot=4)                         # n_ot
theta = nf.init(net, scheme=None)                               # scheme
batch = task.sample(seed=0, index=0, batch_size=20, lenght=50)  # lenght
nf.gradient(net, theta, [1, 2])                                 # Batch
nf.gradientt(net, theta, batch)                                 # gradientt
nf.gradient(net, theta, batch).d_thta                           # d_thta
nf.clip(net, theta, nf.Clip("norm", threshold=None))            # threshold
nf.train(net, theta, task, nf.Recipe(lr="high"))                # lr
nf.statistics.passagess                                         # passagess
nf.trace.saturated                                              # saturated
nf.trace(net, theta)                                            # few
nbflow.data.read_text(7).task()                                 # read_text
"""


def checked(text, tmp_path):
    """Run mypy --strict over a user's file; return its errors by line, and what it says."""
    file = tmp_path / "users.py"
    file.write_text(text)
    said, failure, _ = mypy.run(["--strict", "--no-color-output", f"--cache-dir={tmp_path / 'cache'}", str(file)])
    assert not failure
    assert "Any" not in re.findall(r'Revealed type is "(.*)"', said)
    return {int(line): what for line, what in re.findall(r"users\.py:(\d+): error: (.*)", said)}, said


def test_every_mistake_is_found(tmp_path):
    errors, said = checked(MISTAKES, tmp_path)
    for number, line in enumerate(MISTAKES.splitlines(), 1):
        _, _, word = line.partition("# ")
        assert (word in errors.get(number, "")) if word else number not in errors, f"{line}\n{said}"


def test_what_readme_writes_is_well_typed(tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippets) >= 2
    units = "".join(f"reveal_type(nf.{name})\n" for name in ("gradient", "trace", "train", "sweep", "unit"))
    errors, said = checked("\n".join(snippets) + units, tmp_path)
    assert not errors, said
