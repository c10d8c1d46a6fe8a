"""The toolkit in slow, obvious NumPy: the reference that the compiled code is held against.

Loops over time and sequences are written out, and no derivative of a cell or a loss is derived by hand: each is a
complex step (Squire & Trapp 1998), f'(x) = Im f(x + ih) / h, which has no cancellation and so is exact to rounding.
Nothing here knows of replicas, nothing here is fast, and nothing of nbflow is imported. One file a purpose, as there;
every public name is also one of the package.

Symbols: T steps, B sequences, N inputs, H hidden units, M outputs, G gates, S state lines.
A batch is a tuple (inputs, targets, weights): inputs (T,B,N) numbers or (T,B) tokens, targets (T,B) classes or (T,B,M)
numbers, weights (T,B). A gradient flow is recorded by `backward` in a `Flow`.
"""

from naive.arrays import Array, Batch, Params, cosine, gram_schmidt, length, rescale
from naive.calculus import TINY, central_difference, complex_step
from naive.cells import CELLS, Cell, leaky_tanh, relu, rotation, sigmoid
from naive.clipping_bias import Distances, average_of_clipped, distances, kept, long_run_distances, shares
from naive.clips import Clipped, clip, groups
from naive.counter import Words, below, draw, philox4x32, uniform
from naive.flows import (
    BOUND,
    FLOOR,
    counted,
    omega,
    omega_detached,
    omega_frozen,
    omega_immediate,
    omega_of,
    penalty_slope,
    penalty_value,
    share,
    squared_gain,
)
from naive.gradients import Flow, Pulled, backward, gradient, jacobian, loss_of, partials, pull_back
from naive.losses import LOSSES, loss, loss_slope
from naive.noise import noise, normal
from naive.optimizers import OPTIMIZERS, Optimizer, State, adam, momentum, rmsprop, sgd
from naive.parameters import pack, sizes, slices, unpack
from naive.regularizers import (
    COMPLEX_SAFE,
    REGULARIZERS,
    flossing,
    norm_stabilizer,
    orthogonality,
    regularizer_slope,
    spectral_cap,
)
from naive.stacks import stacked_backward, stacked_loss, stacked_omega_detached, stacked_states
from naive.stateful_clips import STATEFUL, adagc, error_feedback, spam
from naive.states import forward, outputs, preactivations
from naive.tasks import (
    TASKS,
    addition,
    copy,
    delayed_recall,
    memorization,
    memorization_5bit,
    multiplication,
    permutation,
    temporal_order,
    temporal_order_3bit,
    temporal_order_anywhere,
)
from naive.thresholds import THRESHOLDS, constant, inverse_time, linear, percentile, quantile, zscore
from naive.trace import by_lag, gate_values, last_step, lyapunov, saturation, spectrum
from naive.two_ways import two_way_backward, two_way_loss, two_way_outputs, two_way_states
