"""What to look at: states, how the gradient flows back through them, and what clipping does to it on average."""

from nbflow.trace.average_of_clipped import average_of_clipped
from nbflow.trace.clipping_bias import clipping_bias
from nbflow.trace.gradient_flow import trace
from nbflow.trace.lyapunov import lyapunov_exponents
from nbflow.trace.singular_values import jacobian_singular_values
from nbflow.trace.thresholds import matched_threshold, norm_quantiles

OTHERS = (
    average_of_clipped, clipping_bias, jacobian_singular_values, lyapunov_exponents, matched_threshold, norm_quantiles,
)  # fmt: skip

# `nbflow.trace` is the function: what else there is to look at hangs on it, so that `nbflow.trace.clipping_bias` is
# the same thing as `nbflow.clipping_bias`.
for other in OTHERS:
    setattr(trace, other.__name__, other)

__all__ = [
    "average_of_clipped", "clipping_bias", "jacobian_singular_values", "lyapunov_exponents", "matched_threshold",
    "norm_quantiles", "trace",
]  # fmt: skip
