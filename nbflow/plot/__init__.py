"""Pictures: functions that draw one thing on axes, pages with a head, and quantities over training.

Functions that draw one thing take `ax=`, axes of matplotlib, and make a page of their own without it; they return the
axes, with all that they drew. They set labels with units, and leave title and legend to you: `ax.legend()` knows the
labels. Colours are told apart by colour-blind readers too. Words and lines take the ink of the axes, and so fit light
and dark ones, whoever made them; `theme("dark")` makes dark pages. `page` gives a figure with a title and a few lines
at its top, and `save` writes one, whole or not at all. Matplotlib (`pip install 'nbflow[plot]'`) is imported inside the
functions, for nbflow itself does without it.
"""

from nbflow.plot._cliff import cliff as cliff
from nbflow.plot._clipping import clip_report as clip_report, clipping_bias as clipping_bias
from nbflow.plot._diagnosis import diagnosis as diagnosis
from nbflow.plot._flow import (
    delta_map as delta_map,
    gain_histogram as gain_histogram,
    gradient_by_lag as gradient_by_lag,
)
from nbflow.plot._learning import learning_curve as learning_curve
from nbflow.plot._marks import (
    grid as grid,
    intervals as intervals,
    legend_below as legend_below,
    legend_beside as legend_beside,
    median as median,
    percent as percent,
    plain_log as plain_log,
    reference as reference,
    replicas as replicas,
)
from nbflow.plot._page import (
    COLOURS as COLOURS,
    page as page,
    save as save,
    shades as shades,
)
from nbflow.plot._runs import success as success, survival as survival, sweep_heatmap as sweep_heatmap
from nbflow.plot._saturation import saturation as saturation
from nbflow.plot._spectra import eigenvalues as eigenvalues, spectrum as spectrum
from nbflow.plot._theme import FAINT as FAINT, INK as INK, Inks as Inks, inks as inks, theme as theme
from nbflow.plot._training import Level as Level, Row as Row, training as training
