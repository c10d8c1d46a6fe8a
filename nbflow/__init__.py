"""nbflow: how gradients flow through a recurrent network, and what each cure does to them.

Glossary: T steps, B sequences in a batch, N inputs, H hidden units, M outputs, G gates, S state lines, R replicas,
P parameters; theta the flat parameter vector; s_t the whole recurrent state, h_t = s_t[0] its output line; a_in and
a_rec the pre-activations from input and state; delta_t = dL/ds_t; J_t = ds_t/ds_{t-1}; v_t = J_t^T delta_t; the gain
r_t = ||v_t|| / ||delta_t||, q = r^2; Omega the flow regularizer, alpha its weight.

Importing it compiles nothing; every name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what a type checker reads; what Python does is below
    from nbflow import (
        cells as cells,
        clips as clips,
        counter as counter,
        data as data,
        flows as flows,
        inits as inits,
        losses as losses,
        optimizers as optimizers,
        plot as plot,
        records as records,
        regularizers as regularizers,
        scalars as scalars,
        statistics as statistics,
        tasks as tasks,
        thresholds as thresholds,
    )
    from nbflow._compile import exact_unit as exact_unit, unit as unit
    from nbflow._load import names as names
    from nbflow.data.arrays import arrays as arrays
    from nbflow.data.synthetic import Task as Task, load_task as load_task
    from nbflow.diagnostics.average_of_clipped import average_of_clipped as average_of_clipped
    from nbflow.diagnostics.clipping_bias import clipping_bias as clipping_bias
    from nbflow.diagnostics.diagnose import diagnose as diagnose
    from nbflow.diagnostics.differences import check_gradient as check_gradient
    from nbflow.diagnostics.fixed_points import fixed_points as fixed_points
    from nbflow.diagnostics.jacobians import step_jacobians as step_jacobians
    from nbflow.diagnostics.lags import gains_by_lag as gains_by_lag
    from nbflow.diagnostics.lyapunov import lyapunov_exponents as lyapunov_exponents
    from nbflow.diagnostics.saturation import saturation as saturation
    from nbflow.diagnostics.singular_values import jacobian_singular_values as jacobian_singular_values
    from nbflow.diagnostics.spectrum import recurrent_spectrum as recurrent_spectrum
    from nbflow.diagnostics.thresholds import matched_threshold as matched_threshold, norm_quantiles as norm_quantiles
    from nbflow.diagnostics.trace import trace as trace
    from nbflow.experiments.experiment import Experiment as Experiment, grid as grid
    from nbflow.experiments.sweep import Swept as Swept, sweep as sweep
    from nbflow.experiments.warm_up import warm_up as warm_up
    from nbflow.gradients.clipping import clip as clip, load_rule as load_rule
    from nbflow.gradients.gradient import gradient as gradient, predict as predict
    from nbflow.gradients.objective import objective as objective
    from nbflow.gradients.vector_products import hvp as hvp, jvp as jvp, vjp as vjp
    from nbflow.gradients.workspace import workspace as workspace
    from nbflow.model.cell import load_cell as load_cell
    from nbflow.model.keras_weights import from_keras as from_keras
    from nbflow.model.network import Network as Network
    from nbflow.model.parameters import init as init, pack as pack, unpack as unpack
    from nbflow.model.saved import load as load, save as save
    from nbflow.model.stack import Stack as Stack
    from nbflow.model.torch_weights import from_torch as from_torch, to_torch as to_torch
    from nbflow.records.batch import Batch as Batch, Params as Params
    from nbflow.records.bias import (
        AverageOfClipped as AverageOfClipped,
        ClippingBias as ClippingBias,
        Distances as Distances,
        Kinds as Kinds,
        RuleBias as RuleBias,
    )
    from nbflow.records.cell import Cell as Cell
    from nbflow.records.checks import Calibration as Calibration, GradientCheck as GradientCheck
    from nbflow.records.clip import (
        Clip as Clip,
        Clipped as Clipped,
        ExampleClip as ExampleClip,
        HiddenClip as HiddenClip,
        MicrobatchClip as MicrobatchClip,
    )
    from nbflow.records.diagnosis import (
        Diagnosis as Diagnosis,
        FixedPoints as FixedPoints,
        RecurrentSpectrum as RecurrentSpectrum,
        Saturation as Saturation,
        StackDiagnosis as StackDiagnosis,
    )
    from nbflow.records.estimates import Interval as Interval, SequenceMean as SequenceMean, Spectrum as Spectrum
    from nbflow.records.flow import Flow as Flow, HDetach as HDetach
    from nbflow.records.gradient import Cotangent as Cotangent, Gradient as Gradient, Tangent as Tangent
    from nbflow.records.loss import Loss as Loss
    from nbflow.records.noise import Noise as Noise
    from nbflow.records.optimizer import Optimizer as Optimizer, OptimizerSlots as OptimizerSlots
    from nbflow.records.penalties import Penalty as Penalty, Regularizer as Regularizer, StatePenalty as StatePenalty
    from nbflow.records.rules import Rule as Rule, StatefulRule as StatefulRule
    from nbflow.records.threshold import Threshold as Threshold
    from nbflow.records.trace import LagProfile as LagProfile, Trace as Trace
    from nbflow.storage.store import Store as Store
    from nbflow.training.apply import apply_update as apply_update
    from nbflow.training.best import Best as Best
    from nbflow.training.calibration import calibrate_threshold as calibrate_threshold
    from nbflow.training.early_stopping import EarlyStopping as EarlyStopping
    from nbflow.training.evaluation import evaluate as evaluate
    from nbflow.training.halving_rate import HalvingRate as HalvingRate
    from nbflow.training.recipe import Recipe as Recipe
    from nbflow.training.resume import load_run as load_run
    from nbflow.training.run import Run as Run
    from nbflow.training.stages import Staged as Staged, train_stages as train_stages
    from nbflow.training.threshold import load_threshold as load_threshold
    from nbflow.training.train import train as train
    from nbflow.training.updater import updater as updater

__version__ = "0.1.0"

# The module of every public name, and the modules that are public as a whole. A test holds both against the above.
_HOMES = {
    "_compile": ("exact_unit", "unit"),
    "_load": ("names",),
    "records.batch": ("Batch", "Params"),
    "records.bias": ("AverageOfClipped", "ClippingBias", "Distances", "Kinds", "RuleBias"),
    "records.cell": ("Cell",),
    "records.checks": ("Calibration", "GradientCheck"),
    "records.clip": ("Clip", "Clipped", "ExampleClip", "HiddenClip", "MicrobatchClip"),
    "records.diagnosis": ("Diagnosis", "FixedPoints", "RecurrentSpectrum", "Saturation", "StackDiagnosis"),
    "records.estimates": ("Interval", "SequenceMean", "Spectrum"),
    "records.flow": ("Flow", "HDetach"),
    "records.gradient": ("Cotangent", "Gradient", "Tangent"),
    "records.loss": ("Loss",),
    "records.noise": ("Noise",),
    "records.optimizer": ("Optimizer", "OptimizerSlots"),
    "records.penalties": ("Penalty", "Regularizer", "StatePenalty"),
    "records.rules": ("Rule", "StatefulRule"),
    "records.threshold": ("Threshold",),
    "records.trace": ("LagProfile", "Trace"),
    "model.cell": ("load_cell",),
    "model.keras_weights": ("from_keras",),
    "model.network": ("Network",),
    "model.parameters": ("init", "pack", "unpack"),
    "model.saved": ("load", "save"),
    "model.stack": ("Stack",),
    "model.torch_weights": ("from_torch", "to_torch"),
    "data.synthetic": ("Task", "load_task"),
    "gradients.gradient": ("gradient", "predict"),
    "gradients.workspace": ("workspace",),
    "gradients.vector_products": ("hvp", "jvp", "vjp"),
    "gradients.objective": ("objective",),
    "gradients.clipping": ("clip", "load_rule"),
    "data.arrays": ("arrays",),
    "training.apply": ("apply_update",),
    "training.best": ("Best",),
    "training.early_stopping": ("EarlyStopping",),
    "training.halving_rate": ("HalvingRate",),
    "training.recipe": ("Recipe",),
    "training.stages": ("Staged", "train_stages"),
    "training.train": ("train",),
    "training.updater": ("updater",),
    "training.run": ("Run",),
    "training.resume": ("load_run",),
    "training.evaluation": ("evaluate",),
    "training.threshold": ("load_threshold",),
    "training.calibration": ("calibrate_threshold",),
    "diagnostics.average_of_clipped": ("average_of_clipped",),
    "diagnostics.clipping_bias": ("clipping_bias",),
    "diagnostics.fixed_points": ("fixed_points",),
    "diagnostics.jacobians": ("step_jacobians",),
    "diagnostics.lags": ("gains_by_lag",),
    "diagnostics.lyapunov": ("lyapunov_exponents",),
    "diagnostics.saturation": ("saturation",),
    "diagnostics.singular_values": ("jacobian_singular_values",),
    "diagnostics.spectrum": ("recurrent_spectrum",),
    "diagnostics.thresholds": ("matched_threshold", "norm_quantiles"),
    "diagnostics.trace": ("trace",),
    "diagnostics.diagnose": ("diagnose",),
    "diagnostics.differences": ("check_gradient",),
    "experiments.experiment": ("Experiment", "grid"),
    "experiments.sweep": ("Swept", "sweep"),
    "experiments.warm_up": ("warm_up",),
    "storage.store": ("Store",),
}  # fmt: skip

_MODULES = (
    "cells", "clips", "counter", "data", "flows", "inits", "losses", "optimizers", "plot", "records",
    "regularizers", "scalars", "statistics", "tasks", "thresholds",
)  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


if not TYPE_CHECKING:  # a checker that saw it would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name in _HOME_OF:
            found = getattr(importlib.import_module(f"nbflow.{_HOME_OF[name]}"), name)
        elif name in _MODULES:
            found = importlib.import_module(f"nbflow.{name}")
        else:
            raise AttributeError(f"module 'nbflow' has no attribute {name!r}")
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
