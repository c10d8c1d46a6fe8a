"""Other people's results on the sets that scripts/music.py knows by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
    pascanu : tuple of floats
        Pascanu, Mikolov, Bengio 2013, table 1: SGD, with clipping, with clipping and Omega.
    """

    title: str
    goal: float | None = None
    span: tuple[float, float] | None = None
    pascanu: tuple[float, ...] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Return what was trained, and its test loss."""
        found = [("plain RNNs in several papers", "{:.1f} to {:.1f}".format(*self.span))] if self.span else []
        methods = ("SGD", "SGD, clipping", "SGD, clipping, Omega")
        return found + [
            (f"{method} (Pascanu, Mikolov, Bengio 2013)", f"{test:.2f}")
            for method, test in zip(methods, self.pascanu, strict=False)
        ]


# Known by a part of the file's name.
PUBLISHED = {
    "jsb": Published("JSB chorales", goal=8.8, span=(8.7, 9.1)),
    "nottingham": Published("Nottingham", goal=4.0, span=(3.4, 4.5), pascanu=(3.80, 3.48, 3.36)),
    "piano": Published("Piano-midi.de", pascanu=(7.56, 7.53, 7.46)),
    "muse": Published("MuseData", pascanu=(7.11, 7.00, 6.97)),
}


def published(data: Path) -> Published:
    """Return what is known of a set by its file's name."""
    return next((found for part, found in PUBLISHED.items() if part in data.name.lower()), Published(data.stem))
