"""The engines behind one face, and the one place where a backend's name is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from nbflow import _check
from nbflow.model._asked import Asked, Found, Plan
from nbflow.records import Batch, Clip, Floats

if TYPE_CHECKING:
    from nbflow.gradients.workspace import Buffers
    from nbflow.model.network import Network


class Training(Protocol):
    """A training run in the memory of its engine: the arrays of its `Plan` are up to date after `bring`."""

    def make_room(self, task: Any, batch_size: int, steps: int) -> None:
        """Make room for the batches of a task, of at most so many steps."""

    def draw(self, task: Any, update: int, length: int) -> None:
        """Draw the batch of an update of a task."""

    def give(self, batch: Batch) -> None:
        """Take a batch, with R in front of checked arrays."""

    def gradient(self, update: int, alpha: Floats | None) -> None:
        """Compute the gradient of the batch; `alpha` (R,) is the flow's weight."""

    def step(self, update: int, lr: Floats, threshold: Floats | None) -> None:
        """Clip the gradient and take a step; a `threshold` (R,) of None is asked of the one that follows the norms."""

    def report(self) -> None:
        """Bring the reports of all updates to the window."""

    def bring(self) -> None:
        """Bring parameters, slots, memory and reports to the arrays of the plan."""

    def take(self) -> None:
        """Take parameters, slots and memory from the arrays of the plan."""


class Engine(Protocol):
    """The verbs of `nbflow.cpu.engine` and `nbflow.cuda.engine`: checked arguments in, arrays with R in front out."""

    def lacks(self, asked: Asked) -> dict[str, Any]:
        """Return what is asked for and not there, by name."""

    def gradient(self, buffers: Buffers, checked: _check.Checked, asked: Asked) -> Found:
        """Return loss, Omega and the gradient."""

    def clip(
        self, net: Network, how: Clip, rows: Floats, threshold: Floats, theta: Floats | None,
        draw_seed: Callable[[], int],
    ) -> tuple[Floats, Floats, dict[int, Any]]:  # fmt: skip
        """Return gradients (R, P) clipped, the report, and what it says of the mended ones, by replica."""

    def predict(self, buffers: Buffers, checked: _check.Checked) -> Floats:
        """Return the outputs (R, T, B, M) at every step."""

    def states(self, buffers: Buffers, checked: _check.Checked) -> Floats:
        """Return the states (R, T+1, B, S, H) of all steps."""

    def activations(self, buffers: Buffers, checked: _check.Checked) -> tuple[Floats, Floats]:
        """Return s_t, t > 0, and what the cell saves (R, T, B, S or K, H); arbitrary after the end of a sequence."""

    def trace(self, buffers: Buffers, checked: _check.Checked) -> tuple[Floats, ...]:
        """Return the losses (R,), states and delta (R, T+1, B, S, H), ||delta|| (R, T+1, B) and ||v|| (R, T, B)."""

    def score(
        self, buffers: Buffers, checked: _check.Checked, asked: Asked, *, whole: bool
    ) -> tuple[Floats, Floats | None]:
        """Return the losses (R,), and the last state of a computation that is `whole`."""

    def wrong(
        self, buffers: Buffers, theta: Floats, task: Any, ids: Any, seed: int, draws: Iterable[tuple[int, int]]
    ) -> Iterator[Any]:
        """Yield which sequences are answered wrongly (R, B), for each index and length of a batch of a task."""

    def train(self, plan: Plan) -> Training:
        """Return a training run."""


def engine_of(backend: str) -> Engine:
    """Return the engine of a backend; what the GPU's needs is imported, and looked for, only here."""
    if _check.choice("backend", backend, ("cpu", "cuda")) == "cpu":
        from nbflow.cpu import engine

        return engine
    from nbflow.cuda.device import require

    require()
    from nbflow.cuda import engine as on_card

    return on_card


def refuse_lacking(engine: Engine, asked: Asked) -> None:
    """Refuse by its name what an engine lacks; it never does something else instead."""
    for name, value in engine.lacks(asked).items():
        raise NotImplementedError(
            f"{name} is {value!r}; expected none, or the default, as backend 'cuda' does not have it yet. "
            f"Leave it out, or give backend='cpu'."
        )
