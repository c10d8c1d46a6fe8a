"""Pictures: pages with a head, axes that look alike, and quantities over training.

Functions that draw one thing take `ax=`, axes of matplotlib, and make a page of their own without it; they return the
axes. `page` gives a figure with a title and a few lines at its top, and `save` writes one, whole or not at all.
Matplotlib (`pip install -e '.[scripts]'`) is imported inside the functions, for nbflow itself does without it.
"""

from nbflow.plot._marks import grid as grid
from nbflow.plot._marks import intervals as intervals
from nbflow.plot._marks import legend_below as legend_below
from nbflow.plot._marks import median as median
from nbflow.plot._marks import percent as percent
from nbflow.plot._marks import reference as reference
from nbflow.plot._marks import replicas as replicas
from nbflow.plot._page import COLOURS as COLOURS
from nbflow.plot._page import FAINT as FAINT
from nbflow.plot._page import INK as INK
from nbflow.plot._page import page as page
from nbflow.plot._page import save as save
from nbflow.plot._page import shades as shades
from nbflow.plot._training import Level as Level
from nbflow.plot._training import Row as Row
from nbflow.plot._training import training as training
