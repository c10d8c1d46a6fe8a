"""What a diagnosis says in words: what becomes of the gradient, why, and what to try."""

from __future__ import annotations

import numpy as np

from nbflow.model.network import Network
from nbflow.model.stack import Stack
from nbflow.records import Diagnosis, RecurrentSpectrum, Saturation, StackDiagnosis

# From here on so much saturation is a cause worth naming.
MUCH = 0.3
NOT_FINITE = "The gradient is not finite on its way back, as the loss is not. Look at states and weights: nbflow.trace."


def words_of(found: Diagnosis, carries: bool) -> str:
    """Return the summary of a network; `carries` says whether its cell has a way past w_rec."""
    if found.verdict == "is not finite":
        return NOT_FINITE
    lines = [_about_the_gradient(found), *_about_zeros(found), _about_directions(found)]
    lines.append(_about_w_rec(found.spectrum, found.saturation))
    if found.clipped is not None:
        lines.append(_about_the_clip(found.clipped))
    return "\n".join([*lines, *_said(_tries(found, carries))])


def words_of_stack(found: StackDiagnosis, net: Stack) -> str:
    """Return the summary of a stack: of its whole gradient, of each layer, and what to try."""
    if found.verdict == "is not finite":
        return NOT_FINITE
    lines = [_about_the_gradient(found)]
    tries: list[str] = []
    for number, (layer, seen) in enumerate(zip(net.layers, found.layers, strict=True)):
        lines.append(_about_a_layer(number, layer, seen))
        more = _tries(seen._replace(verdict=found.verdict, clipped=found.clipped), layer.cell_object.carries)
        tries += [one for one in more if one not in tries]
    if found.clipped is not None:
        lines.append(_about_the_clip(found.clipped))
    return "\n".join([*lines, *_said(tries)])


def _about_a_layer(number: int, layer: Network, seen: Diagnosis) -> str:
    cell = layer.cell if isinstance(layer.cell, str) else layer.cell_object.brief()
    reached = int(np.flatnonzero(~np.isnan(seen.left))[-1])
    return (
        f"Layer {number} ({cell}, {layer.n_hidden} units): in its own time a step back leaves {seen.kept:.3g}, "
        f"{seen.left[reached]:.2g} at lag {reached}; largest Lyapunov exponent {seen.exponents.mean[0]:.3g} a step. "
        f"{_about_w_rec(seen.spectrum, seen.saturation)}"
    )


def _about_the_clip(clipped: float) -> str:
    return f"The clip changed {clipped:.0%} of the updates."


def _about_the_gradient(found: Diagnosis | StackDiagnosis) -> str:
    reached = int(np.flatnonzero(~np.isnan(found.left))[-1])
    at_end = f"{found.left[reached]:.2g} at lag {reached}"
    step = f"a step back leaves {found.kept:.3g} of its length"
    if found.verdict == "vanishes":
        return (
            f"The gradient vanishes: {step}, 1/2 after {_steps(found.half)}, 1/100 after {found.hundredth}, {at_end}."
        )
    half = f", 1/2 after {_steps(found.half)}" if found.verdict == "fades" else ""
    return f"The gradient {found.verdict}: {step}{half}, {at_end}."


def _steps(count: int | None) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _about_zeros(found: Diagnosis) -> list[str]:
    """Say at which lag the gradient is exactly 0 in half of the sequences that reach it."""
    there = (~np.isnan(found.lags.norms)).sum(axis=-1)
    dead = np.flatnonzero((found.lags.zeros * 2 >= there) & (there > 0))
    if not dead.size:
        return []
    return [f"It is exactly 0 in half of the sequences from lag {dead[0]} on: there no unit hands anything back."]


def _about_directions(found: Diagnosis) -> str:
    largest, stretched = found.exponents.mean[0], found.singular_values.mean[0]
    what = "move apart" if largest > 0 else "come together"
    return (
        f"Over {found.steps} steps the largest Lyapunov exponent is {largest:.3g} a step (near states {what}), and the "
        f"largest singular value of the Jacobian {stretched:.2g}: no direction of the gradient keeps more."
    )


def _about_w_rec(spectrum: RecurrentSpectrum, seen: Saturation | None) -> str:
    each = ", ".join(f"{gate} {radius:.2f}" for gate, radius in zip(spectrum.gates, spectrum.radius, strict=True))
    said = f"Spectral radius of w_rec: {each}."
    if seen is None:
        return said
    parts = ", ".join(f"{gate} {part:.0%}" for gate, part in zip(seen.gates, seen.part.mean, strict=True))
    return f"{said} Saturated: {parts} of the steps."


def _tries(found: Diagnosis, carries: bool) -> list[str]:
    """Return what to try."""
    tries = []
    if found.verdict in ("vanishes", "fades"):
        tries.append('Omega, nbflow.Flow("norm", alpha=1.0) in the recipe')
        if not carries:
            tries.append('a cell with a way past w_rec: "lstm", "gru", "leaky_tanh"')
        if found.saturation is not None and (found.saturation.part.mean > MUCH).any():
            tries.append("smaller weights or inputs, for what is saturated hands nothing back")
        elif not carries and (found.spectrum.radius < 1).all():
            tries.append('a larger w_rec, as of the init "orthogonal"')
    elif found.verdict in ("grows", "explodes"):
        tries.append('a clip, nbflow.Clip("norm", threshold), with a threshold by nbflow.calibrate_threshold')
        tries.append("a smaller learning rate")
    elif found.clipped is not None and found.clipped > 1 - MUCH:
        tries.append("a larger threshold: nearly every update is cut")
    return tries


def _said(tries: list[str]) -> list[str]:
    return [f"To try: {'; '.join(tries)}."] if tries else []
