"""Pictures: pages with a head, axes that look alike, and quantities over training.

Functions that draw one thing take `ax=`, axes of matplotlib, and make a page of their own without it; they return the
axes. `page` gives a figure with a title and a few lines at its top, and `save` writes one, whole or not at all.
Matplotlib (`pip install -e '.[scripts]'`) is imported inside the functions, for nbflow itself does without it.
"""

from nbflow.plot._marks import (
    grid as grid,
    intervals as intervals,
    legend_below as legend_below,
    median as median,
    percent as percent,
    reference as reference,
    replicas as replicas,
)
from nbflow.plot._page import (
    COLOURS as COLOURS,
    FAINT as FAINT,
    INK as INK,
    page as page,
    save as save,
    shades as shades,
)
from nbflow.plot._training import Level as Level, Row as Row, training as training
