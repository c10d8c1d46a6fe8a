"""The records that cross the seams of nbflow; every shape is documented here, once.

Letters: T steps, B sequences in a batch, N inputs, H hidden units, M outputs, G gates, S state lines, R replicas,
P parameters. Arrays are time-major. A call with replicas has R in front of every shape. A "net.dtype array" has the
dtype of the network, float32 or float64.
"""

from nbflow.records._limits import BOUNDS, LENGTHS, PARTS, RATES, THRESHOLDS
from nbflow.records._types import UNLESS_EMPTY, Floats, Unit
from nbflow.records.batch import Batch, Params
from nbflow.records.bias import AverageOfClipped, ClippingBias, Distances, Kinds, RuleBias
from nbflow.records.cell import Cell
from nbflow.records.checks import Calibration, GradientCheck
from nbflow.records.clip import (
    GROUP_POLICIES,
    OTHERS,
    POLICIES,
    SITES,
    Clip,
    Clipped,
    ExampleClip,
    HiddenClip,
    MicrobatchClip,
)
from nbflow.records.diagnosis import Diagnosis, FixedPoints, RecurrentSpectrum, Saturation, StackDiagnosis
from nbflow.records.estimates import Interval, SequenceMean, Spectrum
from nbflow.records.flow import DERIVATIVES, REDUCTIONS, Flow, HDetach
from nbflow.records.gradient import Cotangent, Gradient, Tangent
from nbflow.records.loss import Loss
from nbflow.records.noise import Noise
from nbflow.records.optimizer import Optimizer, OptimizerSlots
from nbflow.records.penalties import AnyPenalty, Penalty, Regularizer, StatePenalty
from nbflow.records.rules import OVER, AnyRule, Rule, StatefulRule
from nbflow.records.threshold import Threshold, check_threshold
from nbflow.records.trace import LagProfile, Trace

__all__ = [
    "BOUNDS", "DERIVATIVES", "GROUP_POLICIES", "LENGTHS", "OTHERS", "OVER", "PARTS", "POLICIES", "RATES", "REDUCTIONS",
    "SITES", "THRESHOLDS", "UNLESS_EMPTY", "AnyPenalty", "AnyRule", "AverageOfClipped", "Batch", "Calibration",
    "Cell", "Clip", "Clipped", "ClippingBias", "Cotangent", "Diagnosis", "Distances", "ExampleClip", "FixedPoints",
    "Floats",
    "Flow", "Gradient", "GradientCheck", "HDetach", "HiddenClip", "Interval", "Kinds", "LagProfile", "Loss",
    "MicrobatchClip", "Noise", "Optimizer", "OptimizerSlots", "Params", "Penalty", "RecurrentSpectrum", "Regularizer",
    "Rule", "RuleBias", "Saturation", "SequenceMean", "Spectrum", "StackDiagnosis", "StatePenalty", "StatefulRule",
    "Tangent", "Threshold", "Trace", "Unit", "check_threshold",
]  # fmt: skip
