"""What to look at: states, and how the gradient flows back through them."""

from nbflow.trace.gradient_flow import trace

__all__ = ["trace"]
