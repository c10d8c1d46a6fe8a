"""Backend "cuda", where numba finds a GPU; skipped elsewhere, as in the simulator."""

import nbflow as nf
from nbflow.cuda import device

from .common import SHAPES, Problem, Timed, sizes


def skip_without_a_gpu():
    """Tell asv to skip."""
    try:
        device.require()
    except RuntimeError as error:
        raise NotImplementedError(str(error)) from None
    if device.SIMULATED:
        raise NotImplementedError("the simulator's time says nothing")


class CardGradient(Timed):
    """A gradient, with its arguments sent there and the result brought back."""

    params = [SHAPES[:5], ["plain", "omega"]]
    param_names = ["T,B,N,H", "flow"]

    def setup(self, shape, flow):
        skip_without_a_gpu()
        asked = {"flow": nf.Flow("norm", 2.0)} if flow == "omega" else {}
        self.problem = Problem(shape, asked=asked | {"backend": "cuda"})
        self.time_gradient(shape, flow)

    def time_gradient(self, shape, flow):
        self.problem()


class CardPopulation(Timed):
    """Training on temporal order, 20 updates of R networks; `track_rate` is network updates a second without set-up."""

    params = [[1, 10, 100, 1000], ["100,20,6,50"]]
    param_names = ["R", "T,B,N,H"]

    def setup(self, replicas, shape):
        skip_without_a_gpu()
        T, B, N, H = sizes(shape)
        self.net = nf.Network("tanh", N, H, 4)
        self.theta = nf.init(self.net, "basic_tanh", rng=0, replicas=replicas)
        self.recipe = nf.Recipe(batch_size=B, lengths=T, clip=nf.Clip("norm", 1.0), evaluate_every=0,
                                max_updates=400, record_every=200)  # fmt: skip
        self.track_rate(replicas, shape)

    def track_rate(self, replicas, shape):
        seconds = []
        nf.train(self.net, self.theta, "temporal_order", self.recipe, backend="cuda",
                 callbacks=[lambda run: seconds.append(run.seconds)])  # fmt: skip
        return 200 * replicas / (seconds[1] - seconds[0])

    track_rate.unit = "network updates/s"
