"""Which grids a computation runs, and in what order. Nothing here waits for the card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nbflow.cpu.record import EXACT
from nbflow.cuda import job
from nbflow.cuda.backward import build_backward
from nbflow.cuda.clip import POLICIES, build_look, build_mend, build_rule
from nbflow.cuda.device import MOST_THREADS, launch, launch_over, threads_for
from nbflow.cuda.flow import build_norms, build_penalties
from nbflow.cuda.forward import build_forward, build_lengths, build_transpose
from nbflow.cuda.h_detach import build_detach
from nbflow.cuda.held import build_hold
from nbflow.cuda.loss import build_losses, build_predictions, build_wrong
from nbflow.cuda.replica import build_combine, build_combine_moving, build_group_norms, build_report
from nbflow.cuda.sample import build_sample
from nbflow.cuda.second import build_second
from nbflow.cuda.state_penalty import build_state_norms, build_state_penalties
from nbflow.cuda.stateful import build_joint, build_measured, build_settle, build_stateful_rule
from nbflow.cuda.tangent import build_slopes_dot, build_tangent
from nbflow.cuda.update import build_count, build_keep, build_update
from nbflow.cuda.weights import THREADS, build_weights, parts_of
from nbflow.cuda.workspace import Workspace
from nbflow.model._asked import Asked
from nbflow.records import StatefulRule


def forward(space: Workspace, *, whole: bool, carried: bool = False) -> None:
    """Run all sequences forward; `whole` through all steps, `carried` from START."""
    space.flag(job.IS_WHOLE, int(whole))
    space.flag(job.IS_CARRIED, int(carried))
    replicas, _, batch, _ = space.shape
    cut, cell = space.blocks, space.cell
    launch_over(build_lengths(), replicas * batch, space.job, space.numbers, space.integers, space.steps)
    kernel = build_forward(cell, space.dtype, cut.rows, cut.resident)
    threads, blocks = threads_for(space.net.n_hidden), replicas * -(-batch // cut.rows)
    launch(kernel, blocks, threads, space.job, space.numbers, space.integers, shared=cut.forward_bytes)


def predictions(space: Workspace) -> None:
    """Fill Y at every step."""
    count = space.shape.replicas * space.steps
    threads = threads_for(space.shape.batch * space.net.n_out)
    launch(build_predictions(), count, threads, space.job, space.numbers, space.steps)


def losses(space: Workspace) -> None:
    """Fill LOSSES, and Y with dL/dy."""
    kernel = build_losses(space.net.loss_object, space.dtype)
    threads = threads_for(space.shape.batch * space.net.n_out)
    count = space.shape.replicas * space.steps
    launch(kernel, count, threads, space.job, space.numbers, space.integers, space.steps)


def backward(space: Workspace) -> None:
    """Run all sequences back."""
    replicas, _, batch, _ = space.shape
    cut, cell, hidden = space.blocks, space.cell, space.net.n_hidden
    if not cut.resident:
        launch_over(build_transpose(), replicas * hidden * len(cell.gates) * hidden, space.job, space.numbers)
    if space.purpose.detaching:
        arguments = space.job, space.numbers, space.integers, *space.detach_draws, space.steps
        launch_over(build_detach(), replicas * space.steps, *arguments)
    kernel = build_backward(
        cell,
        space.dtype,
        cut.rows,
        cut.resident,
        *space.hidden_clip,
        space.purpose.detaching,
        space.purpose.state_penalty,
    )
    blocks = replicas * -(-batch // cut.rows)
    launch(kernel, blocks, threads_for(hidden), space.job, space.numbers, space.integers, shared=cut.backward_bytes)


def norms(space: Workspace) -> None:
    """Fill DELTA_NORM and V_NORM."""
    replicas, _, batch, _ = space.shape
    threads = threads_for(space.net.n_hidden * len(space.net.cell_object.states))
    blocks = replicas * (space.steps + 1) * batch
    launch(build_norms(space.dtype), blocks, threads, space.job, space.numbers, space.integers, space.steps)


def state_penalties(space: Workspace, penalty: Any) -> None:
    """Fill PENALTIES and COUNTED of states, and PULL, from the forward pass."""
    replicas, _, batch, _ = space.shape
    arguments = space.job, space.numbers, space.integers, space.steps
    blocks = replicas * (space.steps + 1) * batch
    launch(build_state_norms(space.dtype), blocks, threads_for(space.net.n_hidden), *arguments)
    launch_over(build_state_penalties(penalty, space.dtype), replicas * space.steps * batch, *arguments)


def gradient(space: Workspace, asked: Asked) -> None:
    """From a forward pass to REPORT and D_THETA."""
    losses(space)
    if space.purpose.state_penalty:
        state_penalties(space, asked.penalty)
    backward(space)
    if asked.flow is None or not space.purpose.derivative:
        weights(space)
        return
    norms(space)
    weights(space, asked.penalty, asked.flow.bound, asked.flow.reduction == "mean")


def report(space: Workspace, flowing: bool = False, by_mean: bool = False) -> None:
    """Fill REPORT from LOSSES and the penalties."""
    kernel, replicas = build_report(space.dtype), space.shape.replicas
    launch(kernel, replicas, MOST_THREADS, space.job, space.numbers, space.integers, space.steps, flowing, by_mean,
           space.seen_inside, -(-space.shape.batch // space.blocks.rows))  # fmt: skip


def weights(space: Workspace, penalty: Any = None, bound: float = 0.0, by_mean: bool = False) -> None:
    """From the tape to REPORT and D_THETA, Omega included if there is a penalty; its alpha stands in ALPHA.

    In a workspace for groups of sequences, each group's gradient is clipped by GROUP_THRESHOLD.
    """
    net, replicas, batch = space.net, space.shape.replicas, space.shape.batch
    flowing, grouped, moving = penalty is not None, space.purpose.group_rows > 0, space.purpose.moving
    parts = parts_of(space.steps, batch, space.purpose.group_rows)
    arguments = space.job, space.numbers, space.integers
    if flowing:
        threads = threads_for(net.n_hidden)
        kernel = build_penalties(penalty, space.dtype, not moving)
        launch(kernel, replicas * space.steps * batch, threads, *arguments[:2], space.steps, space.dtype(bound))
    report(space, flowing or space.purpose.state_penalty, by_mean)
    if moving:
        tangents(space, by_mean)
    blocks = sum(space.product_blocks)
    launch(build_weights(space.dtype), replicas * parts * blocks, THREADS, *arguments, parts, blocks)
    if grouped:
        launch(build_group_norms(space.dtype), replicas * parts, MOST_THREADS, *arguments[:2], parts)
    if moving:
        launch_over(build_combine_moving(space.dtype), replicas * net.size, *arguments[:2], parts)
    else:
        launch_over(build_combine(space.dtype), replicas * net.size, *arguments[:2], parts, grouped, flowing, by_mean)


def tangents(space: Workspace, by_mean: bool) -> None:
    """Run the tangents that Omega's slopes make: forward, of dL/dy, and back (`nbflow.cuda.tangent`, `second`)."""
    replicas, _, batch, _ = space.shape
    cut, exact = space.blocks, space.purpose.derivative == EXACT
    bound = space.cell, space.dtype, cut.rows, cut.resident, exact
    arguments = space.job, space.numbers, space.integers
    threads, blocks = threads_for(space.net.n_hidden), replicas * -(-batch // cut.rows)
    launch(build_tangent(*bound), blocks, threads, *arguments, by_mean, shared=cut.forward_bytes)
    if exact:
        kernel = build_slopes_dot(space.net.loss_object, space.dtype)
        over = threads_for(batch * space.net.n_out)
        launch(kernel, replicas * space.steps, over, *arguments, space.steps)
    launch(build_second(*bound), blocks, threads, *arguments, shared=cut.backward_bytes)


def hold(space: Workspace) -> None:
    """Make the gradient of what is held 0."""
    launch_over(build_hold(space.dtype), space.shape.replicas * space.net.size, space.job, space.numbers)


def clip(space: Workspace, policy: str, follow: Callable[[], None] | None = None) -> None:
    """Clip D_THETA in its place, and fill CLIP_REPORT; what is not finite is left to `mend`, if need be cleaned.

    `follow` is called between the look at the norms and the clip, to queue what changes THRESHOLD.
    """
    rule, dtype, replicas = space.purpose.rule, space.dtype, space.shape.replicas
    assert rule is not None
    number = POLICIES[policy]
    look_before, look_after = build_look(dtype)
    launch(look_before, replicas, MOST_THREADS, space.job, space.numbers, number)
    if follow is not None:
        follow()
    blocks = space.clip_blocks
    kernel = (
        _of_memory(space, rule)
        if isinstance(rule, StatefulRule)
        else build_rule(rule.clip, rule.over, rule.relative, dtype)
    )
    launch(kernel, replicas * blocks, MOST_THREADS, space.job, space.numbers, space.integers, blocks, number)
    launch(look_after, replicas, MOST_THREADS, space.job, space.numbers, space.clip_blocks, number)


def _of_memory(space: Workspace, rule: StatefulRule) -> Any:
    """Measure what a rule that remembers measures; return its grid."""
    slots, dtype, replicas = len(rule.slots), space.dtype, space.shape.replicas
    measured = build_measured(rule.measured, slots, dtype)
    launch_over(measured, replicas * space.net.size, space.job, space.numbers)
    launch(build_joint(dtype), replicas, MOST_THREADS, space.job, space.numbers)
    return build_stateful_rule(rule.clip, rule.over, slots, len(rule.settings), dtype)


def mend(space: Workspace, policy: str, seed: int, index: int) -> None:
    """Take the random steps that the rule asks for, and put something in the place of what is not finite."""
    rule, replicas = space.purpose.rule, space.shape.replicas
    assert rule is not None
    purpose = space.purpose
    kernel = build_mend(rule.over == "all", rule.random, purpose.holds, purpose.sized, space.dtype)
    launch(kernel, replicas, MOST_THREADS, space.job, space.numbers, space.integers, POLICIES[policy], seed, index)


def sample(space: Workspace, task: Any, seed: int, purpose: int, index: int, length: int) -> None:
    """Draw a batch on the card."""
    space.fit(task.steps(length))
    threads = space.shape.replicas * space.shape.batch * -(-space.steps // 4)
    kernel = build_sample(task, space.dtype)
    arguments = space.job, space.numbers, space.integers, seed, purpose, index, length, space.steps
    launch_over(kernel, threads, *arguments)


def wrong(space: Workspace, task: Any) -> None:
    """Fill WRONG from Y, by the task's tolerance."""
    kernel, count = build_wrong(task.classes), space.shape.replicas * space.shape.batch
    launch_over(kernel, count, space.job, space.numbers, space.integers, space.steps, float(task.tolerance))


def update(space: Workspace, row: int) -> None:
    """Take a step of the optimizer, and keep the reports in a row of HISTORY."""
    optimizer = space.purpose.optimizer
    assert optimizer is not None
    sizes = len(optimizer.slots), len(optimizer.settings)
    kernel = build_update(optimizer.update, *sizes, space.purpose.holds, space.dtype)
    arguments = space.job, space.numbers, space.integers
    launch_over(build_count(), space.shape.replicas, *arguments)
    launch_over(kernel, space.shape.replicas * space.net.size, *arguments)
    if isinstance(space.purpose.rule, StatefulRule):
        settle = build_settle(len(space.purpose.rule.slots))
        launch_over(settle, space.shape.replicas * space.net.size, *arguments)
    launch_over(build_keep(), space.shape.replicas, *arguments[:2], row)
