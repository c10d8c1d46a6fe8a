"""What `nbflow.trace` is: a function, and the other ways to look as its attributes."""

from __future__ import annotations

import functools

from nbflow.diagnostics._gradient_flow import trace as trace_gradient
from nbflow.diagnostics.average_of_clipped import average_of_clipped
from nbflow.diagnostics.clipping_bias import clipping_bias
from nbflow.diagnostics.fixed_points import fixed_points
from nbflow.diagnostics.jacobians import step_jacobians
from nbflow.diagnostics.lags import gains_by_lag
from nbflow.diagnostics.lyapunov import lyapunov_exponents
from nbflow.diagnostics.saturation import saturation
from nbflow.diagnostics.singular_values import jacobian_singular_values
from nbflow.diagnostics.spectrum import recurrent_spectrum
from nbflow.diagnostics.thresholds import matched_threshold, norm_quantiles


class _Tracing:
    """`nbflow.trace(net, theta, batch)`, and `nbflow.trace.saturation`: the same function as `nbflow.saturation`.

    An object and not a function, so that a type checker sees the attributes too.
    """

    average_of_clipped = staticmethod(average_of_clipped)
    clipping_bias = staticmethod(clipping_bias)
    fixed_points = staticmethod(fixed_points)
    gains_by_lag = staticmethod(gains_by_lag)
    jacobian_singular_values = staticmethod(jacobian_singular_values)
    lyapunov_exponents = staticmethod(lyapunov_exponents)
    matched_threshold = staticmethod(matched_threshold)
    norm_quantiles = staticmethod(norm_quantiles)
    recurrent_spectrum = staticmethod(recurrent_spectrum)
    saturation = staticmethod(saturation)
    step_jacobians = staticmethod(step_jacobians)
    __call__ = staticmethod(trace_gradient)

    def __init__(self) -> None:
        functools.update_wrapper(self, trace_gradient)
        self.__module__ = __name__  # where pickle finds it

    def __reduce__(self) -> str:
        return "trace"


trace = _Tracing()
