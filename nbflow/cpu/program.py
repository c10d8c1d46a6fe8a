"""Which kernels a computation runs, and in what order."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from nbflow._compile import JIT, Kernel
from nbflow.cpu.backward import build_backward, build_step_vjp
from nbflow.cpu.ends import build_input_gradients, build_listening
from nbflow.cpu.flow import build_penalty
from nbflow.cpu.forward import build_forward, build_step
from nbflow.cpu.gradient import build_gradient
from nbflow.cpu.groups import build_groups, build_joint_groups, build_measure_groups
from nbflow.cpu.loss import build_loss_jvp_rows, build_loss_rows, build_losses, build_predictions
from nbflow.cpu.memory import watched
from nbflow.cpu.product import build_product
from nbflow.cpu.readout import build_give, build_take
from nbflow.cpu.recompute import build_keeping, build_recomputing, build_recomputing_back, build_recomputing_ends
from nbflow.cpu.replica import build_combine, build_pack
from nbflow.cpu.run import build_late, build_phases
from nbflow.cpu.second import (
    build_nothing,
    build_second,
    build_second_back,
    build_second_up,
    build_step_vjp_jvp,
    build_weigh,
)
from nbflow.cpu.state_penalty import build_state_penalty
from nbflow.cpu.tangent import build_predictions_dot, build_step_jvp, build_tangent
from nbflow.cpu.team import runner
from nbflow.cpu.workspace import Workspace
from nbflow.records import Penalty, StatePenalty

# The phases of each program.
PROGRAMS = {
    "gradient": (build_forward, build_losses, build_gradient),
    "recomputing": (build_recomputing,),
    "recomputing ends": (build_recomputing_ends,),
    "groups": (build_forward, build_losses, build_backward, build_groups),
    "ends": (build_forward, build_losses, build_gradient, build_input_gradients),
    "trace": (build_forward, build_losses, build_backward),
    "trace ends": (build_forward, build_losses, build_backward, build_input_gradients),
    "predict": (build_forward, build_predictions),
    "losses": (build_forward, build_losses),
    "flow": (build_forward, build_losses, build_backward),  # then, once Omega is counted, `build_second`
    "hvp": (build_forward, build_losses, build_backward, build_second),
    "jvp": (build_forward, build_tangent, build_predictions_dot),
    "carry": (build_forward, build_tangent),
    "push": (build_tangent,),  # on a tape that "losses" has left
    "pull": (build_backward,),
}


# Those that show what becomes of the smallest numbers compute with them: see `nbflow.cpu.subnormals`.
SUBNORMALS = {"trace", "trace ends", "carry", "push", "pull"}

# The way back of a layer below another, which runs forward before that and back after it.
BELOW = {"gradient": build_gradient, "trace": build_backward}


@functools.cache
def _kernels(cell: Any, loss: Any, dtype: Any) -> dict[str, Kernel]:
    """Build the kernels that a shard calls by address."""
    return {
        "product": build_product(dtype),
        "step": build_step(cell, dtype),
        "step_vjp": build_step_vjp(cell, dtype),
        "loss": build_loss_rows(loss, dtype),
    }


@functools.cache
def _second_kernels(cell: Any, loss: Any, dtype: Any) -> dict[str, Kernel]:
    """Build the kernels that second derivatives call beside those."""
    return {
        "step_jvp": build_step_jvp(cell, dtype),
        "step_vjp_jvp": build_step_vjp_jvp(cell, dtype),
        "loss_jvp": build_loss_jvp_rows(loss, dtype),
    }


F = TypeVar("F", bound=Callable[..., None])


def _unless_chosen(choose: F) -> F:
    """Leave a workspace as it is where its program has been chosen in just this way before."""

    @functools.wraps(choose)
    def chosen(workspace: Workspace, *program: str, **how: Any) -> None:
        wanted = choose, program, how
        if workspace.program != wanted:
            choose(workspace, *program, **how)
            workspace.program = wanted

    return cast(F, chosen)


@_unless_chosen
def set_program(
    workspace: Workspace, program: str, *, penalty: Any = None, whole: bool = False, subnormals: bool = False
) -> None:
    """Write the addresses of the kernels of a program into the records of a workspace.

    `whole` runs every sequence through all steps, also those after its last weight; `subnormals` with the smallest
    numbers, as some programs always do.
    """
    dtype, shards = workspace.dtype, workspace.shards
    where = _write_kernels(workspace, PROGRAMS[program], penalty, whole)
    pack, combine = build_pack(dtype).address, build_combine(dtype).address
    if program in ("push", "pull"):
        pack = combine = build_nothing(dtype).address
    phases_of_a_shard = build_phases(dtype, subnormals or program in SUBNORMALS).address
    if program == "flow":
        shards["late"] = build_second(dtype).address
        workspace.entries = [
            (pack, phases_of_a_shard, build_weigh(dtype).address, *where),
            (build_nothing(dtype).address, build_late(dtype).address, combine, *where),
        ]
    else:
        workspace.entries = [(pack, phases_of_a_shard, combine, *where)]


@_unless_chosen
def set_below(workspace: Workspace, program: str, *, penalty: Any, whole: bool, subnormals: bool) -> None:
    """Write the same for a layer below another: `entries` of one call forward, and of one back where there is one."""
    dtype, shards, to_inputs = workspace.dtype, workspace.shards, way_back(workspace) == "ends"
    back, again = BELOW.get(program), program == "recomputing"
    forward = build_keeping if again else build_forward
    where, nothing = _write_kernels(workspace, (forward,), penalty, whole), build_nothing(dtype).address
    subnormals = subnormals or program in SUBNORMALS
    workspace.entries = [(build_pack(dtype).address, build_phases(dtype, subnormals).address, nothing, *where)]
    if back is not None or again:
        shards["late"] = build_recomputing_back(dtype, to_inputs).address if back is None else back(dtype).address
        shards["later"] = build_input_gradients(dtype).address if to_inputs and not again else 0
        workspace.entries += [(nothing, build_late(dtype, subnormals).address, build_combine(dtype).address, *where)]


@_unless_chosen
def set_second(workspace: Workspace, *, penalty: Any, whole: bool, subnormals: bool) -> None:
    """Write the same for a layer of a stack and a second derivative of Omega.

    `entries` are of four calls: forward, back, tangents forward, tangents back. On top the first two are one.
    """
    dtype, nothing, to_inputs = workspace.dtype, build_nothing(workspace.dtype).address, way_back(workspace) == "ends"
    where = _up_and_back(workspace, build_weigh(dtype).address, penalty, whole, subnormals)
    workspace.entries += [
        (nothing, build_second_up(dtype).address, nothing, *where),
        (nothing, build_second_back(dtype, to_inputs).address, build_combine(dtype).address, *where),
    ]


@_unless_chosen
def set_joint(workspace: Workspace, *, penalty: Any, whole: bool, subnormals: bool) -> None:
    """Write the same for a layer of a stack whose groups are clipped by the norms over all layers.

    `entries` are of four calls: forward, back, the norms, the sum. On top the first two are one.
    """
    nothing = build_nothing(workspace.dtype).address
    where = _up_and_back(workspace, nothing, penalty, whole, subnormals)
    workspace.entries += _of_groups(workspace, where, subnormals)


@_unless_chosen
def set_readout(workspace: Workspace, program: str, *, whole: bool, subnormals: bool) -> None:
    """Write the same for an output layer alone: `entries` of one call up, and back where there is a way back.

    For groups two more are of the norms and of the sum.
    """
    dtype, shards, groups = workspace.dtype, workspace.shards, program == "groups"
    for name, one in (("product", build_product(dtype)), ("loss", build_loss_rows(workspace.net.loss_object, dtype))):
        shards[name] = one.address
    last = {"predict": (build_predictions,), "losses": (build_losses,)}.get(program, (build_losses, build_give))
    where, nothing = _write_phases(workspace, (build_take, *last), whole), build_nothing(dtype).address
    phases, combine = build_phases(dtype, subnormals or program in SUBNORMALS).address, build_combine(dtype).address
    workspace.entries = [(build_pack(dtype).address, phases, nothing if groups else combine, *where)]
    if groups:
        workspace.entries += _of_groups(workspace, where, subnormals)


def _of_groups(workspace: Workspace, where: tuple[int, ...], subnormals: bool) -> list[tuple[int, ...]]:
    """Return the calls that find the norms of groups over all layers, and their sum."""
    dtype, nothing = workspace.dtype, build_nothing(workspace.dtype).address
    return [
        (nothing, build_measure_groups(dtype, subnormals).address, nothing, *where),
        (nothing, build_joint_groups(dtype, subnormals).address, build_combine(dtype).address, *where),
    ]


def _up_and_back(workspace: Workspace, after: int, penalty: Any, whole: bool, subnormals: bool) -> tuple[int, ...]:
    """Write the calls forward and back of a layer, with a tape of all steps; on top they are one.

    `after` is what is called for each replica when the way back is over.
    """
    dtype, shards, below = workspace.dtype, workspace.shards, workspace.purpose.below
    to_inputs = way_back(workspace) == "ends"
    inputs = (build_input_gradients,) if to_inputs else ()
    first = (build_forward,) if below else (build_forward, build_losses, build_backward, *inputs)
    where, nothing = _write_kernels(workspace, first, penalty, whole), build_nothing(dtype).address
    phases, late = build_phases(dtype, subnormals).address, build_late(dtype, subnormals).address
    workspace.entries = [(build_pack(dtype).address, phases, nothing if below else after, *where)]
    if below:
        shards["late"] = build_backward(dtype).address
        shards["later"] = build_input_gradients(dtype).address if to_inputs else 0
        workspace.entries += [(nothing, late, after, *where)]
    return where


def way_back(workspace: Workspace) -> str:
    """Return the program of a plain gradient, which may go on to the inputs."""
    return "ends" if workspace.purpose.at_inputs and not workspace.shape.tokens else "gradient"


def _write_kernels(workspace: Workspace, builders: Any, penalty: Any, whole: bool) -> tuple[int, ...]:
    """Write kernels and phases into the records of shards; return where all records lie, as the loop is told it."""
    net, dtype, shards = workspace.net, workspace.dtype, workspace.shards
    kernels = _kernels(workspace.cell, net.loss_object, dtype)
    if workspace.purpose.second:
        kernels = kernels | _second_kernels(workspace.cell, net.loss_object, dtype)
    for name, kernel in kernels.items():
        shards[name] = kernel.address
    if isinstance(penalty, Penalty):
        shards["penalty"] = build_penalty(penalty, dtype).address
    shards["state_penalty"] = _at_states(workspace, penalty)
    return _write_phases(workspace, builders, whole)


def _write_phases(workspace: Workspace, builders: Any, whole: bool) -> tuple[int, ...]:
    """Write the phases alone."""
    shards, replicas = workspace.shards, workspace.replicas
    phases = [build(workspace.dtype).address for build in builders]
    for k in range(5):
        shards[f"phase_{k}"] = phases[k] if k < len(phases) else 0
    shards["whole"] = whole
    return (replicas.ctypes.data, replicas.size, replicas.itemsize, int(replicas["pieces"][0]),
            shards.ctypes.data, shards.size, shards.itemsize)  # fmt: skip


def _at_states(workspace: Workspace, penalty: Any) -> int:
    """Return the address of what adds to delta_t at every step beside the loss, 0 for nothing."""
    if isinstance(penalty, StatePenalty):
        return build_state_penalty(penalty, workspace.dtype).address
    return build_listening(workspace.dtype).address if workspace.purpose.listened else 0


def execute(workspace: Workspace) -> None:
    """Run the program of a workspace on the arrays that it points to."""
    run = runner()
    with contextlib.nullcontext() if JIT else watched(workspace.bounds()):
        for entry in workspace.entries:
            if callable(entry):  # what is done between two layers
                entry()
            else:
                run(*entry)
