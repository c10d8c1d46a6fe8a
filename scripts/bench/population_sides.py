"""What gpu_population.py can measure: nbflow's training loop, and PyTorch's network and batched products."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console

import nbflow as nf
from nbflow.experiments.console import say, uninterrupted

# A side is called with R and a number of updates, and returns the seconds that they took.
Side = Callable[[int, int], float]


class Entrant(NamedTuple):
    """What can be measured: `make` gives its side for a size."""

    title: str
    make: Callable[[Any], Side]
    most: int | None = None  #: networks at a time; None for any number
    alone: bool = True  #: whether it is measured with one network in every size


def nbflow_side(options: Any, backend: str) -> Side:
    """Return nbflow's own training loop."""
    task = nf.load_task("temporal_order")
    net = nf.Network(options.cell, task.n_in, options.hidden, task.n_out, task.loss)

    def measure(replicas: int, updates: int) -> float:
        theta = nf.init(net, "basic_tanh", rng=0, replicas=replicas)
        # The first row of the history comes after one update: what is compiled or allocated is before it.
        times: list[float] = []
        recipe = nf.Recipe(batch_size=options.batch_size, lengths=options.length, clip=nf.Clip("norm", 1.0),
                           max_updates=2 * updates, record_every=updates, evaluate_every=0)  # fmt: skip
        mark = [lambda run: times.append(run.seconds)]
        uninterrupted(nf.train(net, theta, task, recipe, callbacks=mark, backend=backend))
        return times[1] - times[0]

    return measure


def torch_side(options: Any, device: str, *, fused: bool, tf32: bool) -> Side:
    """Return PyTorch's side: `fused` is its own RNN (cuDNN on a GPU), for one network; else batched products."""
    import torch

    T, B, H, N, M = options.length, options.batch_size, options.hidden, 6, 4

    def network(R: int) -> tuple[list[Any], Callable[[Any], Any]]:
        if fused:
            rnn, out = torch.nn.RNN(N, H, device=device), torch.nn.Linear(H, M, device=device)
            return [*rnn.parameters(), *out.parameters()], lambda x: out(rnn(x[:, 0])[0][-1])[None]
        shapes = (R, N, H), (R, H, H), (R, 1, H), (R, H, M), (R, 1, M)
        w_in, w_rec, bias, w_out, b_out = parameters = [
            (0.1 * torch.randn(shape, device=device)).requires_grad_() for shape in shapes
        ]

        def forward(x: Any) -> Any:
            h = torch.zeros(R, B, H, device=device)
            for step in x @ w_in + bias:
                h = torch.tanh(torch.baddbmm(step, h, w_rec))
            return torch.baddbmm(b_out.expand(R, B, M), h, w_out)

        return parameters, forward

    def update(parameters: list[Any], forward: Any, x: Any, target: Any) -> None:
        R = x.shape[1]
        loss = torch.nn.functional.cross_entropy(forward(x).flatten(0, 1), target, reduction="sum") / B
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            factor = torch.clamp(1 / torch.cat([g.reshape(R, -1) for g in gradients], 1).norm(dim=1), max=1)
            for p, g in zip(parameters, gradients, strict=True):
                p -= 0.01 * g * (factor if fused else factor.view(-1, 1, 1))

    def measure(replicas: int, updates: int) -> float:
        try:
            return timed(replicas, updates)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(str(error).splitlines()[0]) from None

    def timed(replicas: int, updates: int) -> float:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        parameters, forward = network(replicas)
        symbols = torch.randint(N, (T, replicas, B), device=device)
        x = torch.nn.functional.one_hot(symbols, N).float()
        target = torch.randint(M, (replicas * B,), device=device)
        wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else bool
        for k in range(2 * updates):
            if k == updates:
                wait()
                started = time.perf_counter()
            update(parameters, forward, x, target)
        wait()
        return time.perf_counter() - started

    return measure


def entrants(options: Any, console: Console) -> Iterator[Entrant]:
    """Give everything that can be measured here, and say what cannot."""
    from nbflow.cuda.device import name_of_card, require

    yield Entrant("nbflow, CPU", lambda options: nbflow_side(options, "cpu"))
    try:
        require()
    except RuntimeError as error:
        say(console, f"No line for a GPU: {error}")
        return
    yield Entrant(f"nbflow, {name_of_card()}", lambda options: nbflow_side(options, "cuda"))
    if options.peers and options.cell == "tanh" and torch_sees_a_gpu():
        for tf32 in (False, True):
            yield from torch_entrants(tf32)


def torch_entrants(tf32: bool) -> tuple[Entrant, Entrant]:
    """Return PyTorch's own network and its products batched over networks."""
    words = f"TF32 {'on' if tf32 else 'off'}"
    return (
        Entrant(f"cuDNN, {words}", lambda options: torch_side(options, "cuda", fused=True, tf32=tf32), most=1),
        Entrant(f"PyTorch, {words}", lambda options: torch_side(options, "cuda", fused=False, tf32=tf32), alone=False),
    )


def torch_sees_a_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())
