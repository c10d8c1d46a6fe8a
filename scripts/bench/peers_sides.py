"""Updates of a recurrent network as nbflow, PyTorch and JAX do them: the sides that bench_peers.py times."""

from __future__ import annotations

import functools
import importlib
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

M = 4
LR = 1e-4
THRESHOLD = 1.0
SQUARE = 2048
GATES = {"tanh": 1, "lstm": 4, "gru": 3}

Shape = tuple[int, int, int, int]
SHAPES = ("50,20,6,50", "200,20,6,50", "200,20,6,100", "200,64,50,200", "100,64,100,512", "100,128,100,1024")


def shape_from(text: str) -> Shape:
    T, B, N, H = (int(part) for part in text.split(","))
    return T, B, N, H


def named(shape: Shape) -> str:
    return ",".join(map(str, shape))


class Problem(NamedTuple):
    """Data and first weights: gradients neither explode nor fall among the denormal numbers."""

    inputs: Any
    targets: Any
    w_in: Any
    w_rec: Any
    bias: Any
    w_out: Any
    b_out: Any


def problem(shape: Shape, cell: str = "tanh") -> Problem:
    T, B, N, H = shape
    rng, gates = np.random.default_rng(0), GATES[cell]
    w_rec = [np.linalg.qr(rng.normal(size=(H, H)))[0] for _ in range(gates)]
    parts = (
        rng.normal(size=(T, B, N)), rng.integers(0, M, B), 0.1 * rng.normal(size=(N, gates * H)) / math.sqrt(N),
        np.concatenate(w_rec, axis=1), np.zeros(gates * H), rng.normal(size=(H, M)) / math.sqrt(H), np.zeros(M),
    )  # fmt: skip
    return Problem(*(part.astype("int32" if part.dtype.kind == "i" else "float32") for part in parts))


class Side:
    """A program that can be timed: made outside the timing, warmed by one update before each burst."""

    def update(self) -> None:
        raise NotImplementedError

    def ready(self) -> None:
        """Do what must be done before a burst."""

    def wait(self) -> None:
        """Wait until all updates are done."""

    def check(self) -> dict[str, Any]:
        """Return the loss and the norm of the gradient of w_rec, for the first weights."""
        raise NotImplementedError

    def run(self, count: int) -> float:
        """Return the seconds that `count` updates take."""
        self.ready()
        self.update()
        self.wait()
        start = time.perf_counter()
        for _ in range(count):
            self.update()
        self.wait()
        return time.perf_counter() - start


class Nbflow(Side):
    """`nf.gradient` with a workspace, `nf.clip`, and a step; `asked` goes to `nf.gradient`."""

    def __init__(self, shape: Shape, threads: int, replicas: int = 0, cell: str = "tanh", **asked: Any) -> None:
        self.nf: Any = importlib.import_module("nbflow")
        self.numba: Any = importlib.import_module("numba")
        nf, (T, B, N, H) = self.nf, shape
        self.threads, self.net = threads, nf.Network(cell=cell, n_in=N, n_hidden=H, n_out=M, loss="softmax")
        given = problem(shape, cell)
        lead = (replicas,) if replicas else ()
        bias_rec = np.zeros(self.net.size - sum(part.size for part in given[2:]), "float32")
        flat = np.concatenate([part.ravel() for part in (*given[2:5], bias_rec, *given[5:])])
        targets, weights = np.zeros((T, B), "int32"), np.zeros((T, B), "float32")
        targets[-1], weights[-1] = given.targets, 1 / B
        parts = (np.tile(part, (*lead, *(1,) * part.ndim)) for part in (given.inputs, targets, weights))
        self.theta, self.batch = np.tile(flat, (*lead, 1)) if lead else flat, nf.Batch(*parts)
        self.clip = nf.Clip("norm", THRESHOLD)
        if "flow" in asked:
            asked["flow"] = nf.Flow(asked["flow"], alpha=1.0)
        if "clip_microbatch" in asked:
            asked["clip_microbatch"] = tuple(asked["clip_microbatch"])
        self.space = nf.workspace(self.net, self.batch)
        self.gradient = functools.partial(nf.gradient, workspace=self.space, **asked)

    def ready(self) -> None:
        self.numba.set_num_threads(self.threads)

    def update(self) -> None:
        out = self.gradient(self.net, self.theta, self.batch)
        self.theta -= LR * self.nf.clip(self.net, out.d_theta, self.clip).d_theta

    def check(self) -> dict[str, Any]:
        out = self.gradient(self.net, self.theta, self.batch)
        w_rec = self.nf.unpack(self.net, out.d_theta).w_rec
        layer = self.numba.threading_layer()
        return {"loss": out.loss, "w_rec": float(np.linalg.norm(w_rec)), "layer": layer}


class NbflowTrain(Nbflow):
    """`nf.train`: its loop alone, without what it sets up before the first update."""

    def run(self, count: int) -> float:
        nf, started = self.nf, 0.0
        self.ready()

        def source(update: int) -> Any:
            nonlocal started
            if update == 1:
                started = time.perf_counter()
            return self.batch

        recipe = nf.Recipe(lr=LR, clip=self.clip, max_updates=count + 1, record_every=count + 1)
        ended: list[float] = []
        nf.train(self.net, self.theta, source, recipe, callbacks=[lambda run: ended.append(time.perf_counter())])
        return ended[-1] - started


class Torch(Side):
    """Eager nn.RNN, nn.LSTM or nn.GRU, nn.Linear, cross_entropy, clip_grad_norm_ and SGD, as their defaults are."""

    def __init__(self, shape: Shape, threads: int, cell: str = "tanh") -> None:
        self.torch: Any = importlib.import_module("torch")
        torch, given = self.torch, problem(shape, cell)
        self.threads = threads
        kind = {"tanh": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
        self.rnn, self.out = kind(shape[2], shape[3]), torch.nn.Linear(shape[3], M)
        names = {"weight_ih_l0": given.w_in.T, "weight_hh_l0": given.w_rec.T, "bias_ih_l0": given.bias}
        with torch.no_grad():
            for name, value in (names | {"bias_hh_l0": 0 * given.bias}).items():
                getattr(self.rnn, name).copy_(torch.from_numpy(value.copy()))
            self.out.weight.copy_(torch.from_numpy(given.w_out.T.copy()))
            self.out.bias.zero_()
        self.parameters = [*self.rnn.parameters(), *self.out.parameters()]
        self.sgd = torch.optim.SGD(self.parameters, lr=LR)
        self.inputs, self.targets = torch.from_numpy(given.inputs), torch.from_numpy(given.targets.astype("int64"))

    def ready(self) -> None:
        self.torch.set_num_threads(self.threads)

    def loss(self) -> Any:
        states, _ = self.rnn(self.inputs)
        return self.torch.nn.functional.cross_entropy(self.out(states[-1]), self.targets)

    def update(self) -> None:
        self.sgd.zero_grad()
        self.loss().backward()
        self.torch.nn.utils.clip_grad_norm_(self.parameters, THRESHOLD)
        self.sgd.step()

    def check(self) -> dict[str, Any]:
        self.sgd.zero_grad()
        loss = self.loss()
        loss.backward()
        return {"loss": loss.item(), "w_rec": self.rnn.weight_hh_l0.grad.norm().item()}


class Jax(Side):
    """A compiled update: the input product outside the scan, parameters donated and kept on the device."""

    def __init__(self, shape: Shape, unroll: int) -> None:
        self.jax: Any = importlib.import_module("jax")
        self.unroll, given = unroll, problem(shape)
        self.theta = self.jax.device_put(given._asdict())
        self.data = self.theta.pop("inputs"), self.theta.pop("targets")
        self.compiled = self.jax.jit(self.next, donate_argnums=0)

    def loss(self, theta: Any, inputs: Any, targets: Any) -> Any:
        jax, numpy = self.jax, self.jax.numpy

        def step(h: Any, a: Any) -> Any:
            return numpy.tanh(a + h @ theta["w_rec"]), None

        start = numpy.zeros((inputs.shape[1], theta["bias"].size), inputs.dtype)
        h, _ = jax.lax.scan(step, start, inputs @ theta["w_in"] + theta["bias"], unroll=self.unroll)
        y = jax.nn.log_softmax(h @ theta["w_out"] + theta["b_out"])
        return -numpy.take_along_axis(y, targets[:, None], axis=1).mean()

    def next(self, theta: Any, inputs: Any, targets: Any) -> Any:
        numpy = self.jax.numpy
        loss, d = self.jax.value_and_grad(self.loss)(theta, inputs, targets)
        norm = numpy.sqrt(sum(numpy.vdot(part, part) for part in d.values()))
        scale = LR * numpy.minimum(1.0, THRESHOLD / norm)
        return {name: theta[name] - scale * d[name] for name in theta}, loss

    def update(self) -> None:
        self.theta, self.last = self.compiled(self.theta, *self.data)

    def wait(self) -> None:
        self.jax.block_until_ready((self.theta, self.last))

    def check(self) -> dict[str, Any]:
        loss, d = self.jax.jit(self.jax.value_and_grad(self.loss))(self.theta, *self.data)
        return {"loss": float(loss), "w_rec": float(self.jax.numpy.linalg.norm(d["w_rec"]))}


class Sgemm(Side):
    """NumPy's float32 matrix product of two squares."""

    def __init__(self, shape: Shape) -> None:
        rng = np.random.default_rng(0)
        self.a, self.b = rng.normal(size=(2, SQUARE, SQUARE)).astype("float32")
        self.c = np.empty_like(self.a)

    def update(self) -> None:
        np.matmul(self.a, self.b, out=self.c)


SIDES: dict[str, Callable[..., Side]] = {
    "nbflow": Nbflow, "train": NbflowTrain, "torch": Torch, "jax": Jax, "sgemm": Sgemm,
}  # fmt: skip
