"""Light and dark: the style of what is drawn from nothing, and the inks that fit axes which somebody else made."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from nbflow import _check
from nbflow._legible import legible

SIZE = 10  # points, of all words but the title
# The page, words on it, words that matter less, and lines behind all else.
LIGHT = ("#FFFFFF", "#222222", "#666666", "#DDDDDD")
DARK = ("#14181E", "#E6E6E6", "#A5A7A8", "#34383D")
THEMES = {"light": LIGHT, "dark": DARK}
INK, FAINT = LIGHT[1:3]
# How far faint words and a grid are from the ink to the page: what makes LIGHT's two of its other two.
TO_FAINT, TO_GRID = 68 / 221, 187 / 221

_now: ContextVar[str] = ContextVar("nbflow_plot_theme", default="light")


@legible
class Inks(NamedTuple):
    """Colours, as matplotlib takes them, that can be seen on the page behind some axes.

    Attributes
    ----------
    page : str
        Of the page itself.
    ink : str
        For words and marks.
    faint : str
        For what matters less.
    grid : str
        For lines behind all else.
    """

    page: str
    ink: str
    faint: str
    grid: str


def needed() -> None:
    """Refuse to draw where matplotlib is not installed.

    Raises
    ------
    ImportError
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError(
            "plot needs matplotlib, which is not installed; expected it, for it draws. pip install 'nbflow[plot]'."
        )


@contextmanager
def theme(name: str) -> Iterator[None]:
    """Let pages, and figures that matplotlib makes meanwhile, be "light" or "dark".

    What draws on axes that are there already looks at these: words and lines of nbflow.plot take their colours from the
    axes' own, so that any style of matplotlib will do.

    Parameters
    ----------
    name : str
        "light", which pages are by default, or "dark".

    Yields
    ------
    None

    Examples
    --------
    >>> from nbflow.plot import page
    >>> with theme("dark"), page("A title", "", (4, 3)) as figure:
    ...     axes = figure.subplots()
    >>> inks(axes).page
    '#14181e'
    """
    needed()
    from matplotlib import rc_context

    _check.choice("name", name, tuple(THEMES))

    token = _now.set(name)
    try:
        with rc_context(style()):
            yield
    finally:
        _now.reset(token)


def style() -> Any:
    """Return the settings of matplotlib for pages of the theme."""
    page, ink, faint, grid = THEMES[_now.get()]
    return {
        "font.size": SIZE,
        "figure.facecolor": page,
        "savefig.facecolor": page,
        "axes.facecolor": page,
        "axes.edgecolor": faint,
        "axes.labelcolor": ink,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "text.color": ink,
        "xtick.color": faint,
        "ytick.color": faint,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "grid.color": grid,
    }


def dark() -> bool:
    """Whether pages are dark now."""
    return _now.get() == "dark"


def faint() -> str:
    """Return the colour of words that matter less on a page of the theme."""
    return THEMES[_now.get()][2]


def inks(ax: Any) -> Inks:
    """Return the colours that fit axes, whatever style they were made in."""
    from matplotlib.colors import to_hex, to_rgba

    ink = to_rgba(ax.xaxis.label.get_color())
    # Of transparent axes on a transparent figure nobody knows what is behind; it is far from the ink.
    behind = (0.0, 0.0, 0.0, 1.0) if _light(ink) else (1.0, 1.0, 1.0, 1.0)
    faces = (to_rgba(face) for face in (ax.get_facecolor(), ax.figure.get_facecolor()))
    page = next((face for face in faces if face[3] > 0.5), behind)
    return Inks(to_hex(page), to_hex(ink), to_hex(_between(ink, page, TO_FAINT)), to_hex(_between(ink, page, TO_GRID)))


def _light(colour: Any) -> bool:
    """Whether a colour is nearer to white than to black, to the eye (weights of ITU-R BT.709)."""
    red, green, blue = colour[:3]
    return bool(0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5)


def _between(one: Any, other: Any, part: float) -> Any:
    return tuple(a + part * (b - a) for a, b in zip(one[:3], other[:3], strict=True))
