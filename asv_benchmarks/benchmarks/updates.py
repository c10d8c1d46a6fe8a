"""Whole updates, and what surrounds a gradient: clips, optimizers, batches, outputs, traces, first weights."""

import numpy as np

import nbflow as nf
from nbflow._load import load
from nbflow.cpu.update import build_update
from nbflow.training.threshold import Follower

from .common import DTYPES, RESEARCH, SHAPES, USUAL, Problem, Timed, network

CLIP = nf.Clip("norm", 1.0)


class Update(Timed):
    """Gradient, joint clip and SGD: call by call, and 20 of them in `nbflow.train`."""

    params = [SHAPES]
    param_names = ["T,B,N,H"]

    def setup(self, shape):
        self.gradient = Problem(shape)
        self.time_calls(shape)

    def time_calls(self, shape):
        problem = self.gradient
        problem.theta -= 1e-4 * nf.clip(problem.net, problem().d_theta, CLIP).d_theta


class Train(Timed):
    params = [RESEARCH]
    param_names = ["T,B,N,H"]
    recipe = nf.Recipe(lr=1e-4, clip=CLIP, max_updates=20, record_every=20)

    def setup(self, shape):
        self.gradient = Problem(shape)
        self.time_20_updates(shape)

    def time_20_updates(self, shape):
        nf.train(self.gradient.net, self.gradient.theta, lambda update: self.gradient.batch, self.recipe)


class Clip(Timed):
    params = [[name for name in nf.names("clips") if isinstance(nf.load_rule(name), nf.Rule)], DTYPES, RESEARCH]
    param_names = ["rule", "dtype", "T,B,N,H"]

    def setup(self, rule, dtype, shape):
        self.net = network(shape, dtype=dtype)
        self.d_theta = np.random.default_rng(0).normal(size=self.net.size).astype(dtype)
        self.clip = nf.Clip(rule, 1.0)
        self.time_clip(rule, dtype, shape)

    def time_clip(self, rule, dtype, shape):
        nf.clip(self.net, self.d_theta, self.clip, rng=0)


class Threshold(Timed):
    """What a threshold adds to an update: the norm, its value and its memory, as the training loop calls it."""

    params = [nf.names("thresholds"), RESEARCH]
    param_names = ["threshold", "T,B,N,H"]
    needed = {
        "constant": {"value": 1.0},
        "inverse_time": {"first": 1.0, "half": 1000},
        "linear": {"first": 1.0, "last": 0.1, "updates": 1000},
    }

    def setup(self, name, shape):
        d_theta = np.random.default_rng(0).normal(size=(1, network(shape).size)).astype("float32")
        self.threshold = Follower(nf.load_threshold(name, **self.needed.get(name, {})), d_theta)
        for update in range(2000):
            self.threshold.at(update)

    def time_threshold(self, name, shape):
        self.threshold.at(2000)


class Optimizer(Timed):
    """The update of all parameters, as the training loop calls it."""

    params = [nf.names("optimizers"), RESEARCH]
    param_names = ["optimizer", "T,B,N,H"]

    def setup(self, name, shape):
        optimizer, size = load("optimizers", name), network(shape).size
        rng = np.random.default_rng(0)
        self.update = build_update(optimizer.update, len(optimizer.slots), len(optimizer.settings))
        theta, d = rng.normal(size=(2, 1, size)).astype("float32")
        settings = np.array(list(optimizer.settings.values()), "float32").reshape(1, -1, 1)
        slots, lr = np.zeros((1, len(optimizer.slots), size), "float32"), np.full(1, 1e-4, "float32")
        self.arguments = theta, d, slots, lr, settings, np.full(1, 6), np.zeros(1, np.bool_)
        self.time_update(name, shape)

    def time_update(self, name, shape):
        self.update(*self.arguments)


class Sample(Timed):
    params = [nf.names("tasks"), [50, 200]]
    param_names = ["task", "length"]

    def setup(self, name, length):
        self.task = nf.load_task(name)
        self.time_sample(name, length)

    def time_sample(self, name, length):
        self.task.sample(seed=0, index=0, batch_size=20, length=length)


class Look(Timed):
    """Outputs of every step; states and how the gradient flows back through them."""

    params = [nf.names("cells")]
    param_names = ["cell"]

    def setup(self, cell):
        problem = Problem(USUAL, cell=cell)
        self.net, self.theta, self.batch, self.workspace = problem.net, problem.theta, problem.batch, problem.workspace
        self.time_predict(cell)
        self.time_trace(cell)

    def time_predict(self, cell):
        nf.predict(self.net, self.theta, self.batch.inputs, workspace=self.workspace)

    def time_trace(self, cell):
        nf.trace(self.net, self.theta, self.batch, workspace=self.workspace)


class Init(Timed):
    params = [nf.names("inits")]
    param_names = ["scheme"]

    def setup(self, scheme):
        self.net = network(USUAL)
        self.time_init(scheme)

    def time_init(self, scheme):
        nf.init(self.net, scheme, rng=0)
