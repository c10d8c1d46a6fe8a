"""Gradients: each cell, loss and penalty, each kind of clip inside of it, and many networks at once."""

import nbflow as nf

from .common import DTYPES, RESEARCH, USUAL, Problem, Timed, peers_regimes, sizes


class Gradient(Timed):
    params = [nf.names("cells"), DTYPES, RESEARCH]
    param_names = ["cell", "dtype", "T,B,N,H"]

    def setup(self, cell, dtype, shape):
        self.gradient = Problem(shape, cell=cell, dtype=dtype)

    def time_gradient(self, cell, dtype, shape):
        self.gradient()


class Regime(Timed):
    """Where gradients vanish below the smallest numbers of float32, stay, and explode: they should cost the same."""

    params = [nf.names("cells"), [regime.name for regime in peers_regimes.REGIMES], ["200,20,6,50", "1000,20,6,50"]]
    param_names = ["cell", "regime", "T,B,N,H"]

    def setup(self, cell, regime, shape):
        decades = {one.name: one.decades for one in peers_regimes.REGIMES}[regime]
        self.side = peers_regimes.NbflowRegime(sizes(shape), 0, cell, decades)
        self.side.update()

    def time_update(self, cell, regime, shape):
        self.side.update()


class Loss(Timed):
    """A loss at every step, over 88 outputs: as with piano rolls."""

    params = [nf.names("losses"), DTYPES]
    param_names = ["loss", "dtype"]

    def setup(self, loss, dtype):
        self.gradient = Problem(USUAL, loss=loss, dtype=dtype, n_out=88, every_step=True)

    def time_gradient(self, loss, dtype):
        self.gradient()


class Tokens(Timed):
    params = [nf.names("cells")]
    param_names = ["cell"]

    def setup(self, cell):
        self.gradient = Problem(USUAL, cell=cell, tokens=True)

    def time_gradient(self, cell):
        self.gradient()


class Flow(Timed):
    params = [[name for name in nf.names("flows") if name != "flossing"], DTYPES]  # that one is no kernel
    param_names = ["penalty", "dtype"]

    def setup(self, penalty, dtype):
        self.gradient = Problem(USUAL, dtype=dtype, asked={"flow": nf.Flow(penalty, alpha=2.0)})

    def time_gradient(self, penalty, dtype):
        self.gradient()


class ClipInside(Timed):
    """Clips that need single examples or single steps."""

    params = [["example", "microbatch", "hidden value", "hidden norm"]]
    param_names = ["clip"]
    asked = {
        "example": {"clip_example": 1.0},
        "microbatch": {"clip_microbatch": (5, 1.0)},
        "hidden value": {"clip_hidden": nf.HiddenClip(1.0)},
        "hidden norm": {"clip_hidden": nf.HiddenClip(1.0, by="norm")},
    }

    def setup(self, clip):
        self.gradient = Problem(USUAL, asked=self.asked[clip])

    def time_gradient(self, clip):
        self.gradient()


class Replicas(Timed):
    """R networks in one call; the time is that of the call."""

    params = [[1, 8, 32], RESEARCH[:2]]
    param_names = ["R", "T,B,N,H"]

    def setup(self, R, shape):
        self.gradient = Problem(shape, replicas=R)

    def time_gradient(self, R, shape):
        self.gradient()


class LongSequence(Timed):
    """T = 100,000, as it is and with checkpoints: the time, and the memory of the whole process."""

    params = [[0, 320, 3200]]
    param_names = ["recompute_every"]
    repeat = 2
    shape = "100000,1,6,50"

    def setup_cache(self):
        """Compile in another process: a compiler needs more memory than the gradient does."""
        for every in self.params[0]:
            Problem("1000,1,6,50", asked={"recompute_every": every or None})

    def setup(self, every):
        self.gradient = Problem(self.shape, asked={"recompute_every": every or None})

    def time_gradient(self, every):
        self.gradient()

    def peakmem_gradient(self, every):
        self.gradient()
