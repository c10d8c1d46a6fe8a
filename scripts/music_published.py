"""Other people's results on the sets that scripts/music.py knows by what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Other people's results on a set, test nats per frame.

    Attributes
    ----------
    title : str
    goal : float or None
        What this script is to stay under.
    span : tuple of two floats, or None
        Plain RNNs in several papers, from the best to the worst.
    pascanu, trained : tuple of floats
        Pascanu, Mikolov, Bengio 2013, table 1: SGD, with clipping, with clipping and Omega, on test and on train.
    """

    title: str
    goal: float | None = None
    span: tuple[float, float] | None = None
    pascanu: tuple[float, ...] = ()
    trained: tuple[float, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return what was trained, and its test loss."""
        found = [("plain RNNs in several papers", "{:.1f} to {:.1f}".format(*self.span))] if self.span else []
        return found + [(f"{network} (Pascanu, Mikolov, Bengio 2013)", f"{test:.2f}") for network, test in self.lines()]

    def lines(self) -> list[tuple[str, float]]:
        """Return what Pascanu, Mikolov, Bengio 2013 trained, and its test loss."""
        return list(zip(("SGD", "SGD, clipping", "SGD, clipping, Omega"), self.pascanu, strict=False))


# Known by what is in it, whatever its file is called: pieces to train on, of validation, and to test on (the split of
# Boulanger-Lewandowski, Bengio, Vincent 2012).
PUBLISHED: dict[tuple[int, ...], Published] = {
    (229, 76, 77): Published("JSB chorales", goal=8.8, span=(8.7, 9.1)),
    (694, 173, 170): Published(
        "Nottingham", goal=4.0, span=(3.4, 4.5), pascanu=(3.80, 3.48, 3.36), trained=(3.67, 3.21, 2.95)
    ),
    (87, 12, 25): Published("Piano-midi.de", pascanu=(7.56, 7.53, 7.46), trained=(6.87, 6.81, 7.01)),
    (524, 135, 124): Published("MuseData", pascanu=(7.11, 7.00, 6.97), trained=(8.25, 6.54, 6.43)),
}


def published(frames: Mapping[str, Sequence[int]], name: str) -> Published:
    """Return what is known of a set by the numbers of its pieces; `name` is its title where nothing is.

    Examples
    --------
    >>> published({"train": [30] * 87, "valid": [30] * 12, "test": [30] * 25}, "museum").title
    'Piano-midi.de'
    """
    pieces = tuple(len(part) for part in frames.values())
    return PUBLISHED.get(pieces, Published(name))
