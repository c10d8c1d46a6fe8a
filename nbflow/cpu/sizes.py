"""The sizes that shapes in `nbflow.cpu.record` are made of, and which of its conditions hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nbflow.cpu.product import CHUNK, lanes, panel_vectors
from nbflow.cpu.purpose import Purpose
from nbflow.cpu.record import DERIVATIVES
from nbflow.cpu.weights import colliding, left_rows
from nbflow.model._shape import Shape
from nbflow.model.network import Network
from nbflow.records import Cell

# Parameters of a piece of packing and of summing. (Packing so many takes 70 us there, starting an awake team 1.3 us.)
PIECE = 65536
# Numbers of the gradients at inputs that are computed together: a narrow product is a short one at every single step.
STRETCH = 8192


def padded(size: Any, multiple: int) -> Any:
    """Return a size rounded up to a multiple."""
    return -(-size // multiple) * multiple


def find_sizes(net: Network, cell: Cell, shape: Shape, purpose: Purpose, rows: Sequence[int]) -> dict[str, Any]:
    """Return what all shards and replicas have in common; each replica is cut into shards of so many rows."""
    replicas, steps, batch, tokens = shape
    gates, lines, vector, panel = len(cell.gates), len(cell.states), lanes(net.scalar), panel_vectors()
    width, out_width, in_width = (padded(size, vector) for size in (net.n_hidden, net.n_out, net.n_in))
    panel, number = panel * vector, np.dtype(net.scalar).itemsize
    row_bytes = gates * width * number
    keep_delta = purpose.keep_delta or (purpose.second and purpose.tangent != "states")
    # Where one shard does all the work, a second thread would only be woken to copy.
    pieces = max(1, net.size // PIECE) if replicas * len(rows) > 1 else 1
    return {
        "number": number, "batch": batch, "n_in": net.n_in, "gates": gates,
        "hidden": net.n_hidden, "width": width, "n_out": net.n_out, "out_width": out_width, "lines": lines,
        "kept": len(cell.saved), "columns": gates * width, "line": lines * width, "takes_tokens": tokens,
        "gate_panels": padded(gates * width, panel), "width_panels": padded(width, panel),
        "out_panels": padded(out_width, panel), "chunk": CHUNK, "panel_width": panel,
        "in_width": in_width, "in_panels": padded(in_width, panel), "inputs_move": purpose.inputs_move,
        "below": purpose.below, "masked": purpose.masked,
        "bias_rec": cell.bias_rec, "additive": cell.additive, "carries": cell.carries,
        "slots": steps + 1 if keep_delta else 2, "v_lines": 1 if purpose.derivative == "immediate" else lines,
        "every": purpose.every, "held": min(purpose.every or steps, steps), "steps": steps,
        "stretch": max(1, min(steps, STRETCH // (max(rows) * in_width))),
        "marks": steps // purpose.every + 1 if purpose.every else 0, "group_rows": purpose.group_rows,
        "group_scale": batch / max(purpose.group_rows, 1), "derivative": DERIVATIVES.get(purpose.derivative, 0),
        "tracing": purpose.keep_delta, "measured": bool(purpose.derivative) or purpose.keep_delta,
        "colliding": colliding(row_bytes), "left_rows": left_rows(net.n_hidden, row_bytes),
        "parameters": net.size, "shard_count": len(rows), "pieces": pieces,
        "knobs": len(cell.settings), "1": 1, "2": 2, "3": 3, "5": 5, "6": 6,
    }  # fmt: skip


def find_conditions(net: Network, cell: Cell, shape: Shape, purpose: Purpose, sizes: dict[str, Any]) -> dict[str, bool]:
    """Return which of `nbflow.cpu.record.CONDITIONS` hold."""
    classes = net.loss_object.classes
    return {
        "dense": not shape.tokens, "tokens": shape.tokens, "values": not classes, "classes": classes,
        "apart": not cell.additive, "bias_rec": cell.bias_rec, "flow": bool(purpose.derivative),
        "immediate": purpose.derivative == "immediate", "measured": sizes["measured"],
        "recomputing": purpose.every > 0, "second": purpose.second, "moving": purpose.moving,
        "colliding": sizes["colliding"], "at_inputs": purpose.at_inputs and not shape.tokens,
        "inputs_move": purpose.inputs_move, "listened": purpose.listened,
        "below": purpose.below, "masked": purpose.masked, "joint": purpose.joint,
    }  # fmt: skip
