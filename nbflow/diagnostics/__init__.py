"""What to look at: states, how the gradient flows back through them, and what clipping does to it on average."""

from nbflow.diagnostics.average_of_clipped import average_of_clipped
from nbflow.diagnostics.clipping_bias import clipping_bias
from nbflow.diagnostics.jacobians import step_jacobians
from nbflow.diagnostics.lags import gains_by_lag
from nbflow.diagnostics.saturation import saturation
from nbflow.diagnostics.spectrum import recurrent_spectrum
from nbflow.diagnostics.thresholds import matched_threshold, norm_quantiles
from nbflow.diagnostics.trace import trace

OTHERS = (
    average_of_clipped, clipping_bias, gains_by_lag, matched_threshold, norm_quantiles, recurrent_spectrum, saturation,
    step_jacobians,
)  # fmt: skip
__all__ = ["average_of_clipped", "clipping_bias", "gains_by_lag", "matched_threshold", "norm_quantiles",
           "recurrent_spectrum", "saturation", "step_jacobians", "trace"]  # fmt: skip

# `nbflow.trace` is the function: the others hang on it, so that `nbflow.trace.clipping_bias` is the same thing as
# `nbflow.clipping_bias`. Singular values and Lyapunov exponents are not imported here, for they bring in more of scipy.
for other in OTHERS:
    setattr(trace, other.__name__, other)
