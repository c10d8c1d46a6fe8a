"""The claim that no unit or record of one's own is wrong in silence, ends the process, or meets a message of others.

`wrong_units.py` has them: units wrong in some fifty ways, for every kind of record, and records with wrong fields. They
run in processes of their own; where one dies, the next goes on behind the case that killed it. For all units of all
records, with the counts at the end:

    NBFLOW_FUZZ=large python -m pytest -s tests/test_fuzz_units.py
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nbflow._compile import JIT

HERE = Path(__file__).parent
LARGE = os.environ.get("NBFLOW_FUZZ", "")
# What must be accepted, lest everything be refused.
RIGHT = ("Cell.step: right", "Loss.slope: right", "Penalty.value: right", "Rule.clip: right",
         "StatefulRule.clip: right", "Optimizer.update: right", "Threshold.value: right", "Task.inputs: right",
         "Own: right", "Cell: right with saved")  # fmt: skip


def run_all(kind: str) -> dict[str, tuple[str, str]]:
    """Return what was found of each case, and what was said; "died" for one that ended its process."""
    found: dict[str, tuple[str, str]] = {}
    first = 0
    while True:
        command = [sys.executable, str(HERE / "wrong_units.py"), *([kind] if kind else []), str(first)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, timeout=3000, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
        for line in lines:
            if "ends" in line:
                found[line["name"]] = line["found"], line["said"]
        if done.returncode == 0:
            return found
        assert lines, done.stderr[-2000:]
        assert "begins" in lines[-1], done.stderr[-2000:]
        found[lines[-1]["name"]] = "died", f"status {done.returncode}"
        first = lines[-1]["begins"] + 1


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_what_is_wrong_is_refused_by_name_and_what_is_accepted_is_right():
    found = run_all(LARGE)
    print(len(found), collections.Counter(kind for kind, _ in found.values()))
    assert {name: found[name] for name in RIGHT} == dict.fromkeys(RIGHT, ("right", ""))
    assert not {name: seen for name, seen in found.items() if seen[0] not in ("right", "refused")}
    assert sum(kind == "refused" for kind, _ in found.values()) > len(found) / 2
