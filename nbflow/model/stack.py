"""Stack: recurrent layers one above the other, each layer's h the inputs of the next one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nbflow import _check
from nbflow._legible import legible
from nbflow.model._hidden import Hidden, Joined
from nbflow.model.network import Network
from nbflow.records import UNLESS_EMPTY, Floats, Loss


@legible
@dataclass(frozen=True)
class Stack:
    """Recurrent layers one above the other: the inputs of each are h_t of the one below.

    The outputs are those of the layer on top, and so is the loss. What the layers below say of outputs and loss does
    not count: they have none, and theta holds no weights for them. theta is one flat vector, the layers' one behind the
    other from the bottom on, and `unpack` returns a tuple of `Params`, one a layer. A state is a tuple of arrays
    (B, S, H), one a layer. A stack of one layer is that network, to the same bits.

    With `bidirectional=True` every layer is two networks of one size, side by side: the second one reads each sequence
    from its own end on, and the layer above, or the outputs, read h of both at every step (Schuster and Paliwal 1997).
    Where one record or state a layer is said above there are two then, the forward one first; w_out (2 H, M) and b_out
    are those of the last record. A sequence ends after `lengths` where these are given, else at its last step with
    weight, and in `predict` after all T steps.

    Parameters
    ----------
    layers : sequence of Network
        From the bottom to the top; `n_in` of each is `n_hidden` of the one below, twice that with two directions, and
        all have one dtype. They may have different cells. Kept as a tuple, in which all but the last have `n_out` 0.
    bidirectional : bool
        Whether each layer runs in both directions.

    Raises
    ------
    TypeError, ValueError
        If a layer is no Network, or does not fit on the one below.

    Examples
    --------
    >>> import nbflow as nf
    >>> stack = nf.Stack([nf.Network("lstm", 6, 50, 4), nf.Network("lstm", 50, 20, 4)])
    >>> stack.n_in, stack.n_hidden, stack.n_out, stack.size
    (6, (50, 20), 4, 17164)
    >>> theta = nf.init(stack, "glorot", rng=0)
    >>> [params.w_rec.shape for params in nf.unpack(stack, theta)]
    [(50, 4, 50), (20, 4, 20)]
    >>> tagger = nf.Stack([nf.Network("gru", 6, 50, 4), nf.Network("gru", 100, 20, 4)], bidirectional=True)
    >>> [params.w_in.shape for params in nf.unpack(tagger, nf.init(tagger, "glorot", rng=0))]
    [(6, 3, 50), (6, 3, 50), (100, 3, 20), (100, 3, 20)]
    """

    layers: tuple[Network, ...]
    bidirectional: bool = field(default=False, metadata={UNLESS_EMPTY: True})

    def __init__(self, layers: Sequence[Network], *, bidirectional: bool = False) -> None:
        """Check every layer."""
        both = _check.flag("bidirectional", bidirectional)
        object.__setattr__(self, "layers", _fitting(layers, 2 if both else 1))
        object.__setattr__(self, "bidirectional", both)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is found from them is found again where a pickle arrives."""
        return {"layers": self.layers, "bidirectional": self.bidirectional}

    @functools.cached_property
    def nets(self) -> tuple[Network, ...]:
        """Every network, in the order of theta: the layers, or the forward and the reverse direction of each."""
        if not self.bidirectional:
            return self.layers
        top = self.layers[-1]
        joined = Joined(*(getattr(top, one.name) for one in dataclasses.fields(top)))
        return (*self.directions[:-1], joined)

    @functools.cached_property
    def directions(self) -> tuple[Network, ...]:
        """The forward and the reverse direction of each layer, without outputs."""
        return tuple(one for layer in self.layers for one in (_without_outputs(layer, layer),) * 2)

    @functools.cached_property
    def titles(self) -> tuple[str, ...]:
        """What a message calls each of `nets`."""
        ways = ("", " reverse") if self.bidirectional else ("",)
        return tuple(f"layer {k}{way}" for k in range(len(self.layers)) for way in ways)

    @property
    def n_in(self) -> int:
        """N, the inputs of the layer at the bottom."""
        return self.layers[0].n_in

    @property
    def n_hidden(self) -> tuple[int, ...]:
        """H of every layer, from the bottom on."""
        return tuple(layer.n_hidden for layer in self.layers)

    @property
    def n_out(self) -> int:
        """M, the outputs of the layer on top."""
        return self.layers[-1].n_out

    @property
    def loss(self) -> str | Loss:
        """The loss, of the layer on top."""
        return self.layers[-1].loss

    @property
    def loss_object(self) -> Loss:
        """The units of the loss."""
        return self.layers[-1].loss_object

    @property
    def dtype(self) -> str:
        """The dtype of every array."""
        return self.layers[-1].dtype

    @property
    def scalar(self) -> Any:
        """The dtype as NumPy's scalar type."""
        return self.layers[-1].scalar

    @functools.cached_property
    def firsts(self) -> tuple[int, ...]:
        """Where the parameters of each layer, or direction, begin in theta."""
        return (0, *itertools.accumulate(net.size for net in self.nets[:-1]))

    @functools.cached_property
    def size(self) -> int:
        """P, the number of parameters of all layers."""
        return sum(net.size for net in self.nets)

    def split(self, theta: Floats) -> tuple[Floats, ...]:
        """Return the parameters of each layer, or direction, or a gradient at them.

        Parameters
        ----------
        theta : array of shape (P,) or (R, P)

        Returns
        -------
        tuple of arrays of shape (P_k,) or (R, P_k)
            Views, from the bottom on.

        Examples
        --------
        >>> import nbflow as nf
        >>> stack = nf.Stack([nf.Network("tanh", 2, 3, 1), nf.Network("tanh", 3, 4, 1)])
        >>> [part.shape for part in stack.split(nf.init(stack, "glorot", rng=0))]
        [(18,), (37,)]
        """
        return tuple(theta[..., first : first + net.size] for net, first in zip(self.nets, self.firsts, strict=True))


Model = Network | Stack


def layers_of(net: Model) -> tuple[tuple[Network, int], ...]:
    """Return the layers of a network, itself if it is one, and where the parameters of each begin.

    Of two directions each is one.
    """
    return tuple(zip(net.nets, net.firsts, strict=True)) if isinstance(net, Stack) else ((net, 0),)


def _without_outputs(layer: Network, top: Network) -> Hidden:
    """Return a layer that has none, with the loss of the one on top."""
    return Hidden(layer.cell, layer.n_in, layer.n_hidden, 0, top.loss, top.dtype)


def _fitting(layers: Any, ways: int) -> tuple[Network, ...]:
    """Return the layers of a stack of one direction or two, checked, those below without outputs."""
    if isinstance(layers, Network) or not isinstance(layers, Sequence) or not len(layers):
        raise TypeError(
            f"layers is {_check.said(layers)}; expected a list of Networks, from the bottom on. "
            f"Write nbflow.Stack([net_1, net_2])."
        )
    for k, layer in enumerate(layers):
        if not isinstance(layer, Network):
            raise TypeError(f"layers[{k}] is {_check.said(layer)}; expected a Network. Write nbflow.Network(...).")
    *below, top = layers
    if isinstance(top, Hidden):
        raise ValueError(
            f"layers[{len(below)}] has no outputs, as a layer below another; expected a Network with n_out of at least "
            f"1 on top. Make one."
        )
    for k, (lower, upper) in enumerate(itertools.pairwise(layers)):
        wanted, said = ways * lower.n_hidden, "n_hidden" if ways == 1 else "twice n_hidden"
        if upper.n_in != wanted:
            raise ValueError(
                f"layers[{k + 1}] has n_in={upper.n_in}; expected {wanted}, {said} of the layer below. "
                f"Make it with n_in={wanted}."
            )
        if upper.dtype != lower.dtype:
            raise ValueError(
                f"layers[{k + 1}] has dtype {upper.dtype}; expected {lower.dtype}, as the layer below. Make all of one."
            )
    return (*(_without_outputs(layer, top) for layer in below), dataclasses.replace(top))
