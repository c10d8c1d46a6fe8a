"""What is asked of the way back beside the gradient: a regularizer, h-detach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbflow import _check, _fields, _names
from nbflow._legible import legible
from nbflow._plain import plain_fields
from nbflow.records._limits import BOUNDS, PARTS, RATES
from nbflow.records._types import Floats
from nbflow.records.penalties import AnyPenalty

DERIVATIVES, REDUCTIONS = ("immediate", "detached", "exact"), ("sum", "mean")


@legible
@dataclass(frozen=True)
class Flow:
    """Omega, the regularizer of gradient flow (Pascanu, Mikolov, Bengio 2013, eq. 9-10; Goodfellow et al., eq. 10.52).

    Or another regularizer, to compare it with.

    Parameters
    ----------
    penalty : str, Penalty, StatePenalty or Regularizer
        "norm" (r-1)^2, "squared" (q-1)^2 or "log" (log r)^2, r being the gain and q its square. Of the others,
        "norm_stabilizer" is one of the states, "orthogonality" and "spectral_cap" of w_rec, "flossing" of the Lyapunov
        exponents: their derivative is the exact one, and the fields below alpha are left as they are.
    alpha : float, or float array of shape (R,)
        The weight of Omega in the objective.
    derivative : str
        "immediate": everything is constant but the explicit w_rec in J_t (Pascanu, Mikolov, Bengio 2013, and their
        code) · "detached": delta_t is constant, the states inside J_t are not (the wording of Goodfellow et al.) ·
        "exact": the derivative of Omega.
    reduction : str
        "sum" over t of the mean over the B sequences, or "mean" over the counted (t, b).
    bound : float
        Only where ||delta_t||^2 >= bound is (t, b) counted.
    """

    penalty: str | AnyPenalty
    alpha: float | Floats | Callable[[int], float | Floats]
    derivative: str = "immediate"
    reduction: str = "sum"
    bound: float = 1e-20

    def __post_init__(self) -> None:
        """Check what needs no network: its dtype may hold fewer numbers, and it knows how many replicas there are."""
        plain_fields(self)
        _fields.check_kind(
            "penalty", self.penalty, str | AnyPenalty, "a name or a Penalty or a StatePenalty or a Regularizer"
        )
        if isinstance(self.penalty, str):
            _names.check("flows", self.penalty, "penalty")
        _fields.check_numeric("alpha", self.alpha, RATES, schedule=True)
        _check.choice("derivative", self.derivative, DERIVATIVES)
        _check.choice("reduction", self.reduction, REDUCTIONS)
        _fields.check_numeric("bound", self.bound, BOUNDS)


@legible
@dataclass(frozen=True)
class HDetach:
    """How often no gradient goes back through h: h-detach (Arpit et al. 2018, for the lstm).

    At a step that is drawn, h_{t-1} is a constant to the gates of step t, for all sequences of the batch, as in the
    authors' code; what the cell carries past w_rec, as the lstm its c, takes the gradient on. What comes back is the
    gradient of nothing.

    Parameters
    ----------
    probability : float, or float array of shape (R,)
        Of each step, 0 to 1.
    seed, index : int
        Which draws: the same ones for the same two. `nbflow.train` puts its own seed and the update in their place.
    """

    probability: float | Floats
    seed: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        """Check what needs no network."""
        plain_fields(self)
        _fields.check_numeric("probability", self.probability, PARTS)
        _check.count("seed", self.seed, 0)
        _check.index("index", self.index)
