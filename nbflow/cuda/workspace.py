"""Memory on the card for a network and a shape of batch: an array of floats, one of integers, the table of places."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from nbflow import _check
from nbflow.cpu.derive import first_order, second_order
from nbflow.cpu.hidden_clip import seen_of_a_step
from nbflow.cpu.record import DERIVATIVES, EXACT, IMMEDIATE
from nbflow.cpu.report import GRADIENT
from nbflow.cuda import job
from nbflow.cuda.clip import CHUNK, WIDTH
from nbflow.cuda.device import SHARED_BYTES, allocate
from nbflow.cuda.weights import FLOW, OUTPUT_FLOW, count_blocks, part_steps_of, parts_of
from nbflow.model import _layout as layout
from nbflow.model._arguments import Checked
from nbflow.model._asked import Asked
from nbflow.model._shape import Shape
from nbflow.model.network import Network
from nbflow.records import AnyRule, Batch, Clip, Optimizer, StatefulRule, StatePenalty

# Sequences of a block: each weight that is read serves all of them. Their sums, one a gate, must stay in registers:
# 16 of them the compiler puts into memory (sm_90, PTX of CUDA 13.0).
ROWS, MOST_SUMS = (4, 2, 1), 12


class Purpose(NamedTuple):
    """What a workspace is for, beside forward passes: each of these takes memory of its own."""

    backward: bool = False
    keeps_delta: bool = False  #: all of delta and v, for a trace or for Omega
    derivative: int = 0  #: of a penalty of the gain, one of `nbflow.cpu.record.DERIVATIVES`; 0 without one
    state_penalty: bool = False
    rule: AnyRule | None = None
    detaching: bool = False  #: h is a constant at steps that are drawn
    group_rows: int = 0  #: sequences that are clipped together, 0 for none
    keeps_raw: bool = False  #: the gradient as it was before the clip
    sized: bool = False  #: random steps have a length of their own
    optimizer: Optimizer | None = None
    holds: bool = False  #: some parameters stay as they are
    history: int = 0  #: rows

    @property
    def moving(self) -> bool:
        """Whether there are tangents, of which derivatives of Omega are made."""
        return self.derivative > IMMEDIATE


def purpose_of(asked: Asked) -> Purpose:
    """Return what a workspace for a gradient is for."""
    derivative = DERIVATIVES.get(asked.derivative, 0)
    return Purpose(
        backward=True, keeps_delta=derivative > 0, derivative=derivative,
        state_penalty=isinstance(asked.penalty, StatePenalty), detaching=asked.detach.probability is not None,
        group_rows=asked.group_rows,
    )  # fmt: skip


class Blocks(NamedTuple):
    """How the time loops are cut: sequences of a block, whether w_rec is in shared memory, and bytes of that."""

    rows: int
    resident: bool
    forward_bytes: int
    backward_bytes: int


NO_BLOCKS = Blocks(1, True, 0, 0)


def blocks_for(net: Network) -> Blocks:
    """Return the cut for a network, or raise a ValueError if a block cannot hold the states of one sequence."""
    hidden, gates, size = net.n_hidden, len(net.cell_object.gates), np.dtype(net.dtype).itemsize
    w_rec = hidden * (gates * hidden | 1) * size
    for rows in (rows for rows in ROWS if rows * gates <= MOST_SUMS or rows == 1):
        forward, backward = 2 * rows * hidden * size, rows * gates * hidden * size
        if max(forward, backward) + w_rec <= SHARED_BYTES:
            return Blocks(rows, True, forward + w_rec, backward + w_rec)
        if max(forward, backward) <= SHARED_BYTES:
            return Blocks(rows, False, forward, backward)
    most = SHARED_BYTES // (max(2, gates) * size)
    raise ValueError(
        f"n_hidden is {hidden}; expected at most {most} for cell {_check.said(net.cell)} in {net.dtype} with "
        "backend 'cuda', "
        f"whose blocks keep a whole state in shared memory. Give backend='cpu'."
    )


class Workspace:
    """Arrays on the card, by the names of `nbflow.cuda.job`."""

    def __init__(self, net: Network, shape: Shape, purpose: Purpose) -> None:
        self.net, self.shape, self.purpose, self.dtype = net, shape, purpose, net.scalar
        self.steps = shape.steps
        derive = second_order if purpose.moving else first_order
        self.cell = derive(net.compiled_cell) if purpose.backward else net.compiled_cell
        self.hidden_clip = 0, False
        self.detach_draws = 0, 0  # seed and index
        self.blocks = blocks_for(net) if shape.steps else NO_BLOCKS
        self.spans = _spans(net, purpose.rule)
        self.table = np.zeros(job.LENGTH, np.int64)
        self._set_sizes()
        self.product_blocks = [count_blocks(self.table, which) for which in range(self.products)]
        floats, integers = self._counts()
        room = f"R={shape.replicas}, T={shape.steps}, B={shape.batch}, H={net.n_hidden}"
        self.numbers = allocate(self._place(floats), self.dtype, f"for {room}")
        self.integers = allocate(self._place(integers), np.int32, f"for {room}")
        self.job = allocate(job.LENGTH, np.int64, f"for {room}")
        self.job.copy_to_device(self.table)
        self.set_ids(np.arange(shape.replicas))
        if shape.steps and net.cell_settings.size:
            self.write("CELL_SETTINGS", net.cell_settings.astype(self.dtype))
        if len(self.spans):
            self.write("SPANS", self.spans.astype(np.int32))

    def holds(self, shape: Shape) -> bool:
        """Tell whether a batch of this shape has room here."""
        return self.shape._replace(steps=0) == shape._replace(steps=0) and self.shape.steps >= shape.steps

    def fit(self, steps: int) -> None:
        """Use the room of the first `steps` steps."""
        self.steps = steps

    def set_ids(self, ids: Any) -> None:
        """Set the numbers (R,) under which replicas draw sequences and random steps."""
        self.write("IDS", ids.astype(np.int32))

    def set_length(self, clip: Clip) -> None:
        """Set how long random steps are, where the threshold does not say it."""
        if clip.length is not None:
            self.write("STEP_LENGTH", np.broadcast_to(clip.length, self.shape.replicas).astype(self.dtype))

    def set_asked(self, asked: Asked) -> None:
        """Set what is clipped or detached on the way back, and the threshold of a clip by groups."""
        site, by_norm, threshold = asked.inside
        self.hidden_clip = site, by_norm
        if site:
            self.write("HIDDEN_THRESHOLD", threshold.astype(self.dtype))
        if asked.detach.probability is not None:
            self.write("DETACH", asked.detach.probability.astype(self.dtype))
            self.detach_draws = asked.detach.seed, asked.detach.number
        if asked.groups is not None:
            self.write("GROUP_THRESHOLD", asked.groups.threshold.astype(self.dtype))
            self.flag(job.GROUP_SKIPS, int(asked.groups.skips))

    @property
    def products(self) -> int:
        """How many matrices the weight gradients are made of."""
        return (FLOW, FLOW + 1, FLOW + 1, OUTPUT_FLOW + 1)[self.purpose.derivative]

    @property
    def seen_inside(self) -> int:
        """What a clip inside back-propagation sees of a step of a sequence: entries, or vectors; 0 without one."""
        return seen_of_a_step(self.net, *self.hidden_clip) if self.hidden_clip[0] else 0

    def send(self, batch: Checked | Batch) -> None:
        """Copy a batch to the card, and use the room of its steps."""
        self.fit(batch.weights.shape[1])
        self.write("WEIGHTS", batch.weights)
        self.write("TOKENS" if self.shape.tokens else "INPUTS", batch.inputs)
        if batch.targets is not None:
            self.write("CLASSES" if self.net.loss_object.classes else "TARGETS", batch.targets)

    def group_norms(self) -> Any:
        """Return the norms of the groups' gradients of the last run, (R, groups)."""
        found = self.read("GROUP_NORMS", self.shape.batch // self.purpose.group_rows, 3).astype(np.float64)
        root, scale, finite = (found[..., column] for column in range(3))
        return np.where(finite == 1, root / scale, np.nan)

    def _set_sizes(self) -> None:
        net, cell, table = self.net, self.net.cell_object, self.table
        table[job.REPLICAS], table[job.BATCH] = self.shape.replicas, self.shape.batch
        table[job.N_IN], table[job.HIDDEN], table[job.N_OUT] = net.n_in, net.n_hidden, net.n_out
        table[job.GATES], table[job.LINES] = len(cell.gates), len(cell.states)
        table[job.PARAMETERS], table[job.BIAS_REC] = net.size, cell.bias_rec
        table[job.IS_TOKENS], table[job.IS_ADDITIVE] = self.shape.tokens, cell.additive
        table[job.KEEPS_DELTA], table[job.DERIVATIVE] = self.purpose.keeps_delta, self.purpose.derivative
        table[job.GROUP_ROWS] = self.purpose.group_rows or self.shape.batch
        if self.purpose.backward:
            table[job.PART_STEPS] = part_steps_of(self.shape.steps, self.shape.batch, self.purpose.group_rows)

    def _counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the size of a replica's part of every array that this purpose needs."""
        net, shape, purpose, cell = self.net, self.shape, self.purpose, self.net.cell_object
        t, b, n, h, m = shape.steps, shape.batch, net.n_in, net.n_hidden, net.n_out
        columns, line, classes = len(cell.gates) * h, len(cell.states) * h, net.loss_object.classes
        floats = {"THETA": net.size, "ALPHA": 1, "REPORT": len(GRADIENT)}
        integers = {"IDS": 1}
        parts = parts_of(t, b, purpose.group_rows) if purpose.backward else 0
        if t:
            floats |= {"WEIGHTS": t * b, "START": b * line, "STATES": (t + 1) * b * line, "Y": t * b * m}
            floats |= {"INPUTS": 0 if shape.tokens else t * b * n, "SAVED": t * b * len(self.cell.saved) * h}
            floats |= {"TARGETS": 0 if classes else t * b * m, "CELL_SETTINGS": len(cell.settings) * h}
            integers |= {"TOKENS": t * b if shape.tokens else 0, "CLASSES": t * b if classes else 0}
            integers |= {"FIRST": b, "HEARD": b, "LAST": b, "WRONG": b}
        if purpose.backward:
            floats |= {"LOSSES": t * b, "REC": t * b * columns, "PRE": 0 if cell.additive else t * b * columns}
            floats |= {"DELTA": (t + 1 if purpose.keeps_delta else 1) * b * line}
            floats |= {"W_BACK": 0 if self.blocks.resident else h * columns}
            floats |= {
                "D_THETA": net.size,
                "PARTIAL": parts * net.size,
                "HIDDEN_THRESHOLD": 1,
                "INSIDE": -(-b // self.blocks.rows),
            }
        if purpose.detaching:
            floats |= {"DETACH": 1}
            integers |= {"DETACHED": t}
        if purpose.keeps_delta:
            floats |= {"V": t * b * line, "DELTA_NORM": (t + 1) * b, "V_NORM": t * b}
        if purpose.derivative:
            floats |= {"PENALTIES": t * b, "COUNTED": t * b, "PARTIAL_FLOW": parts * h * columns}
        if purpose.moving:
            floats |= {"REC_DOT": t * b * columns, "PRE_DOT": 0 if cell.additive else t * b * columns}
            floats |= {"FLOW_SLOPE": t * b, "DELTA_DOT": b * line}
        if purpose.derivative == EXACT:
            floats |= {"STATES_DOT": (t + 1) * b * line, "Y_DOT": t * b * m, "Y_BOTH": t * b * m}
            floats |= {"PARTIAL_OUT": parts * h * m}
        if purpose.state_penalty:
            floats |= {"PENALTIES": t * b, "COUNTED": t * b, "H_NORM": (t + 1) * b, "PULL": t * b}
        if purpose.group_rows:
            floats |= {"GROUP_NORMS": 3 * parts, "GROUP_THRESHOLD": 1}
        if purpose.rule is not None:
            floats |= {"D_THETA": net.size, "THRESHOLD": 1, "CLIP_REPORT": WIDTH, "CLIPPED": self.clip_blocks}
            floats |= {"RAW": net.size if purpose.keeps_raw else 0, "STEP_LENGTH": int(purpose.sized)}
            integers |= {"SPANS": self.spans.size}
        if isinstance(purpose.rule, StatefulRule):
            integers |= {"LEARNT": 1}
            floats |= dict.fromkeys(("RULE_SLOTS", "RULE_FRESH"), len(purpose.rule.slots) * net.size)
            floats |= {"MEASURED": net.size, "MEASURED_NORM": 2, "RULE_SETTINGS": len(purpose.rule.settings)}
        if purpose.optimizer is not None:
            integers |= {"STEPS_TAKEN": 1}
            floats |= {"LR": 1, "SLOTS": len(purpose.optimizer.slots) * net.size}
            floats |= {"SETTINGS": len(purpose.optimizer.settings), "HISTORY": purpose.history * self.history_width}
        if purpose.holds:
            floats |= {"HELD": net.size}
        return floats, integers

    def _place(self, counts: dict[str, int]) -> int:
        """Write the places of arrays into the table; return how much they take."""
        start = 0
        for name, count in counts.items():
            place = job.PLACES[name]
            shared = name in ("SETTINGS", "CELL_SETTINGS", "RULE_SETTINGS", "SPANS")
            self.table[place], self.table[place + 1] = start, 0 if shared else count
            start += count if shared else count * self.shape.replicas
        if "RAW" in counts and not counts["RAW"]:
            self.table[job.RAW : job.RAW + 2] = self.table[job.D_THETA : job.D_THETA + 2]
        return max(start, 1)

    @property
    def clip_blocks(self) -> int:
        """The number of spans or chunks that a gradient is clipped in."""
        return len(self.spans) or -(-self.net.size // CHUNK)

    def _span(self, name: str) -> tuple[Any, int, int]:
        """Return the array on the card, where in it `name` begins, and a replica's share, 0 if there is none."""
        start, apart = (int(number) for number in self.table[job.PLACES[name] : job.PLACES[name] + 2])
        return self.integers if name in job.INTEGERS else self.numbers, start, apart

    def write(self, name: str, values: Any) -> None:
        """Copy values, with R in front, to an array on the card: what is short, to the front of each replica's part."""
        held, start, apart = self._span(name)
        flat = np.ascontiguousarray(values).reshape(-1)
        size = flat.size if not apart else flat.size // self.shape.replicas
        if not apart or size == apart:
            held[start : start + flat.size].copy_to_device(flat)
            return
        for r in range(self.shape.replicas):
            begin = start + r * apart
            held[begin : begin + size].copy_to_device(flat[r * size : (r + 1) * size])

    def read(self, name: str, *shape: int) -> Any:
        """Return the front of each replica's part of an array, as (R, *shape)."""
        held, start, apart = self._span(name)
        size, replicas = math.prod(shape), self.shape.replicas
        whole = held[start : start + replicas * apart].copy_to_host().reshape(replicas, apart)
        return np.ascontiguousarray(whole[:, :size]).reshape(replicas, *shape)

    @property
    def history_width(self) -> int:
        """The columns of HISTORY."""
        return len(GRADIENT) + WIDTH + 1

    def read_clip_report(self) -> Any:
        """Return the reports of a clip (R, columns), as `nbflow.cuda.clip` has them."""
        return self.read("CLIP_REPORT", WIDTH)

    def flag(self, name: int, value: int) -> None:
        """Set an entry of the table, here and on the card."""
        if self.table[name] != value:
            self.table[name] = value
            self.job.copy_to_device(self.table)


def _spans(net: Network, rule: AnyRule | None) -> Any:
    """Return the spans that a rule measures, (spans, 3); none for a rule over all or over entries."""
    if rule is None or rule.over in ("all", "entry"):
        return np.zeros((0, 3), np.int64)
    return layout.spans(net, rule.over)
