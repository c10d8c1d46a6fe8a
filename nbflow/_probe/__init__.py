"""What a user's units are held to before a kernel trusts them: what they return, and whether it is what they say.

Two looks. A unit is compiled for the numbers that it will meet, and what numba infers is held against what its record
promises: so many numbers, no exceptions, no memory. Then it is called a few times as plain Python, and its flags and
derivatives are held against differences. nbflow's own files are trusted; their tests do more.
"""

from nbflow._probe._called import refuse_chance
from nbflow._probe._inferred import are_numbers, inferred, refuse_result, shown
from nbflow._probe.cells import check_cell
from nbflow._probe.losses import check_loss
from nbflow._probe.optimizers import check_optimizer
from nbflow._probe.penalties import check_penalty
from nbflow._probe.rules import check_rule, check_stateful_rule
from nbflow._probe.thresholds import check_threshold, stays_inside

__all__ = [
    "are_numbers", "check_cell", "check_loss", "check_optimizer", "check_penalty", "check_rule", "check_stateful_rule",
    "check_threshold", "inferred", "refuse_chance", "refuse_result", "shown", "stays_inside",
]  # fmt: skip
