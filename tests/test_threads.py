"""Claims about threads: a workspace is one call's at a time, and calls without one share nothing."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tolerance import same_bits

import nbflow as nf
from nbflow.records import Regularizer

TASK = nf.load_task("temporal_order")
NET = nf.Network("tanh", TASK.n_in, 5, TASK.n_out, dtype="float64")
THETA = nf.init(NET, "smart_tanh", rng=0)
BATCH = TASK.sample(seed=0, index=0, batch_size=3, length=10, dtype="float64")
# Every verb that takes a workspace.
VERBS = {
    "gradient": lambda space: nf.gradient(NET, THETA, BATCH, workspace=space),
    "predict": lambda space: nf.predict(NET, THETA, BATCH.inputs, workspace=space),
    "hvp": lambda space: nf.hvp(NET, THETA, BATCH, THETA, workspace=space),
    "trace": lambda space: nf.trace(NET, THETA, BATCH, workspace=space),
    "gains_by_lag": lambda space: nf.trace.gains_by_lag(NET, THETA, BATCH, workspace=space),
    "saturation": lambda space: nf.trace.saturation(NET, THETA, BATCH, workspace=space),
    "step_jacobians": lambda space: nf.trace.step_jacobians(NET, THETA, BATCH.inputs, workspace=space),
}


def busy_while(space, call):
    """Return what `call` does while a gradient is being computed in the workspace, and that gradient."""
    seen = []

    def value_and_gradient(net, theta, batch):
        """Be in the midst of a gradient."""
        seen.append(call())
        return 0.0, np.zeros_like(theta)

    flow = nf.Flow(Regularizer(value_and_gradient), 1.0)
    out = nf.gradient(NET, THETA, BATCH, flow=flow, workspace=space)
    return seen[0], out


def refusal(verb, space):
    with pytest.raises(RuntimeError, match=r"workspace is in use by another call; .* Make one for each thread"):
        verb(space)
    return True


@pytest.mark.sim
@pytest.mark.parametrize("name", VERBS)
def test_a_workspace_that_another_thread_uses_is_refused_and_left_alone(name):
    space, verb = nf.workspace(NET, BATCH), VERBS[name]
    expected = nf.gradient(NET, THETA, BATCH)
    with ThreadPoolExecutor(1) as other:
        refused, out = busy_while(space, lambda: other.submit(refusal, verb, space).result())
    assert refused
    assert same_bits(out.d_theta, expected.d_theta)
    assert out.loss == expected.loss
    verb(space)  # free again


@pytest.mark.sim
def test_a_function_of_ones_own_cannot_use_the_workspace_that_it_is_called_in():
    space = nf.workspace(NET, BATCH)
    assert busy_while(space, lambda: refusal(VERBS["gradient"], space))[0]


@pytest.mark.sim
def test_an_objective_is_one_threads():
    loss = nf.objective(NET, BATCH)
    with ThreadPoolExecutor(1) as other, loss._space:
        with pytest.raises(RuntimeError, match="in use by another call"):
            other.submit(loss, THETA).result()
        with pytest.raises(RuntimeError, match="in use by another call"):
            other.submit(loss.hessp, THETA, THETA).result()
    loss(THETA)


@pytest.mark.sim
def test_a_workspace_is_free_again_after_an_error():
    def value_and_gradient(net, theta, batch):
        raise ZeroDivisionError

    space = nf.workspace(NET, BATCH)
    with pytest.raises(ZeroDivisionError):
        nf.gradient(NET, THETA, BATCH, flow=nf.Flow(Regularizer(value_and_gradient), 1.0), workspace=space)
    VERBS["gradient"](space)


@pytest.mark.sim
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda space: pickle.loads(pickle.dumps(space))])
def test_a_copy_of_a_workspace_has_memory_of_its_own(copied):
    space = nf.workspace(NET, BATCH)
    expected = VERBS["gradient"](space).d_theta
    with space:  # the copy is not in use
        assert same_bits(VERBS["gradient"](copied(space)).d_theta, expected)


def test_threads_with_a_workspace_of_their_own_or_none_compute_what_one_does():
    batches = [TASK.sample(seed=0, index=k, batch_size=3, length=10, dtype="float64") for k in range(8)]
    expected = [nf.gradient(NET, THETA, batch).d_theta for batch in batches]
    barrier = threading.Barrier(4)

    def many(own):
        space = nf.workspace(NET, BATCH) if own else None
        barrier.wait()
        return all(
            same_bits(nf.gradient(NET, THETA, batch, workspace=space).d_theta, right)
            for _ in range(50)
            for batch, right in zip(batches, expected, strict=True)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(many, [False, True, False, True]))
