"""Methods, by the names that scripts take: plain SGD, with a clip, with Omega, or with both."""

from __future__ import annotations

from typing import Any

from nbflow.records import Clip, Flow

TITLES: dict[str, str] = {
    "sgd": "plain SGD",
    "clip": "SGD + clipping",
    "omega": "SGD + Omega",
    "clip+omega": "SGD + clipping + Omega",
}
# Penalties of the gain: the ones that are reduced over steps and sequences.
GAINS = ("norm", "squared", "log")


def cures(method: str, *, clip: Clip, flow: Flow) -> dict[str, Any]:
    """Return the fields of a `nbflow.Recipe` in which methods differ: "clip" and "flow", None where it has none.

    Examples
    --------
    >>> import nbflow as nf
    >>> cures("clip", clip=nf.Clip("norm", 1.0), flow=omega("squared", 2.0))["flow"] is None
    True
    """
    return {"clip": clip if "clip" in method else None, "flow": flow if "omega" in method else None}


def omega(penalty: str, alpha: Any, reduction: str = "mean") -> Flow:
    """Return the flow penalty; `reduction` counts where the penalty is one of the gain."""
    reduced: dict[str, Any] = {"reduction": reduction} if penalty in GAINS else {}
    return Flow(penalty, alpha=alpha, **reduced)
