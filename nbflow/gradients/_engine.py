"""The engines behind one face, and the one place where a backend's name is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from nbflow import _check
from nbflow.model import _arguments
from nbflow.model._asked import PLAIN, Asked, Found, Limits, Plan
from nbflow.model.stack import Stack
from nbflow.records import Batch, Clip, Floats

if TYPE_CHECKING:
    from nbflow.gradients.workspace import Buffers


class Training(Protocol):
    """The verbs of a training run in the memory of its engine: see `nbflow.cpu.training`."""

    def make_room(self, task: Any, batch_size: int, steps: int) -> None: ...
    def draw(self, task: Any, update: int, length: int) -> None: ...
    def give(self, batch: Batch) -> None: ...
    def carry(self, batch: Batch, state: Any, longest: int) -> None: ...
    def state(self) -> Any: ...
    def gradient(self, update: int, alpha: Floats | None, limits: Limits | None) -> None: ...
    def step(self, update: int, lr: Floats, threshold: Floats | None) -> Exception | None: ...
    def report(self) -> None: ...
    def bring(self) -> None: ...
    def take(self) -> None: ...


class Engine(Protocol):
    """The verbs that `nbflow.cpu.engine` and `nbflow.cuda.engine` share, and describe."""

    def lacks(self, asked: Asked, project: Any = None, held_by_example: Any = None) -> dict[str, Any]: ...
    def gradient(self, buffers: Buffers, checked: _arguments.Checked, asked: Asked) -> Found: ...
    def clip(
        self, net: Any, how: Clip, rows: Floats, threshold: Floats, theta: Floats | None,
        draw_seed: Callable[[], int],
    ) -> tuple[Floats, Floats, dict[int, Any]]: ...  # fmt: skip
    def predict(
        self, buffers: Buffers, checked: _arguments.Checked, asked: Asked, *, with_states: bool = False
    ) -> tuple[Floats, Any]: ...
    def activations(self, buffers: Buffers, checked: _arguments.Checked, asked: Asked) -> tuple[Floats, Floats]: ...
    def trace(self, buffers: Buffers, checked: _arguments.Checked, asked: Asked) -> tuple[Floats, ...]: ...
    def losses(
        self, buffers: Buffers, checked: _arguments.Checked, asked: Asked, *, whole: bool
    ) -> tuple[Floats, Floats | None]: ...
    def wrong(
        self, buffers: Buffers, theta: Floats, task: Any, ids: Any, seed: int, draws: Iterable[tuple[int, int]],
        asked: Asked = PLAIN,
    ) -> Iterator[Any]: ...  # fmt: skip
    def train(self, plan: Plan) -> Training: ...


def engine_of(backend: str, net: Any = None) -> Engine:
    """Return the engine of a backend; what the GPU's needs is imported, and looked for, only here."""
    if _check.choice("backend", backend, ("cpu", "cuda")) == "cpu":
        from nbflow.cpu import engine

        return engine
    if isinstance(net, Stack):
        raise NotImplementedError(
            "net is a Stack; expected a Network, as backend 'cuda' has no stacks yet. Give backend='cpu'."
        )
    from nbflow.cuda.device import require

    require()
    from nbflow.cuda import engine as on_card

    return on_card


def refuse_lacking(engine: Engine, asked: Asked, project: Any = None, held_by_example: Any = None) -> None:
    """Refuse by its name what an engine lacks; it never does something else instead."""
    for name, value in engine.lacks(asked, project, held_by_example).items():
        raise NotImplementedError(
            f"{name} is {_check.said(value)}; expected none, or the default, as backend 'cuda' does not have it yet. "
            f"Leave it out, or give backend='cpu'."
        )
