"""nbflow: how gradients flow through a recurrent network, and what each cure does to them.

Glossary: T steps, B sequences in a batch, N inputs, H hidden units, M outputs, G gates, S state lines, R replicas,
P parameters; theta the flat parameter vector; s_t the whole recurrent state, h_t = s_t[0] its output line; a_in and
a_rec the pre-activations from input and state; delta_t = dL/ds_t; J_t = ds_t/ds_{t-1}; v_t = J_t^T delta_t; the gain
r_t = ||v_t|| / ||delta_t||, q = r^2; Omega the flow regularizer, alpha its weight.

Importing it compiles nothing; every name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "_load": ("names",),
    "records": ("AverageOfClipped", "Batch", "Calibration", "Cell", "Clip", "Clipped", "ClippingBias", "Cotangent",
                "Distances", "ExampleClip", "Flow", "Gradient", "GradientCheck", "HDetach", "HiddenClip", "Interval",
                "Kinds", "LagProfile", "Loss", "MicrobatchClip", "Optimizer", "Params", "Penalty", "RecurrentSpectrum",
                "Regularizer", "Rule", "RuleBias", "Saturation", "SequenceMean", "Spectrum", "StatePenalty", "Tangent",
                "Threshold", "Trace"),
    "model.network": ("Network", "init"),
    "model._layout": ("pack", "unpack"),
    "gradients.workspace": ("workspace",),
    "gradients.gradient": ("gradient", "predict"),
    "gradients.vector_products": ("hvp", "jvp", "vjp"),
    "gradients.objective": ("objective",),
    "gradients.clipping": ("clip",),
    "training.calibration": ("calibrate_threshold",),
    "training.evaluation": ("evaluate",),
    "experiments.experiment": ("Experiment", "grid"),
    "diagnostics.differences": ("check_gradient",),
    "training.threshold": ("load_threshold",),
    "data.sampler": ("Task", "load_task"),
    "training.recipe": ("Recipe",),
    "training.resume": ("load_run",),
    "training.run": ("Run",),
    "storage.store": ("Store",),
    "experiments.sweep": ("Swept", "sweep"),
    "training.train": ("train",),
    "model.torch_weights": ("from_torch", "to_torch"),
    "diagnostics": ("average_of_clipped", "clipping_bias", "gains_by_lag", "matched_threshold", "norm_quantiles",
              "recurrent_spectrum", "saturation", "step_jacobians", "trace"),
    "diagnostics.lyapunov": ("lyapunov_exponents",),
    "diagnostics.singular_values": ("jacobian_singular_values",),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


class _Package(types.ModuleType):
    """The package itself: `nbflow.gradient` stays the function when the file gradient.py is imported after it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _HOME_OF and isinstance(value, types.ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nbflow' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"nbflow.{_HOME_OF[name]}"), name)
    setattr(sys.modules[__name__], name, found)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
