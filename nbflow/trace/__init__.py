"""What to look at: states, how the gradient flows back through them, and what clipping does to it on average."""

from nbflow.trace.average_of_clipped import average_of_clipped
from nbflow.trace.clipping_bias import clipping_bias
from nbflow.trace.gradient_flow import trace
from nbflow.trace.thresholds import matched_threshold, norm_quantiles

__all__ = ["average_of_clipped", "clipping_bias", "matched_threshold", "norm_quantiles", "trace"]

# `nbflow.trace` is the function: what clipping does hangs on it, so that `nbflow.trace.clipping_bias` is the same thing
# as `nbflow.clipping_bias`. Spectra are not imported here, for they bring in more of scipy.
for other in (average_of_clipped, clipping_bias, matched_threshold, norm_quantiles):
    setattr(trace, other.__name__, other)
