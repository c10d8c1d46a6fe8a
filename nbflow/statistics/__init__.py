"""What can be said from a few dozen runs: intervals, survival curves and tests, all of scipy.stats.

Success rates have Wilson intervals. The updates until a task is solved are censored: a run that ended unsolved says
only that it would have taken longer, and a mean over those that were solved is one over the lucky ones. That two
methods are alike is shown by an interval that lies within a margin named beforehand; a large p-value of a test of
equality shows nothing.

References
----------
- E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
- R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
  (1998), method 10.
- D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power approach for assessing the
  equivalence of average bioavailability", J. Pharmacokinetics and Biopharmaceutics 15 (1987).
- S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian J. of Statistics 6 (1979).
"""

from nbflow.statistics.comparisons import (
    Equivalence,
    equivalence,
    equivalence_of_rates,
    holm,
    paired_difference,
    paired_equivalence,
)
from nbflow.statistics.intervals import bootstrap, mean_interval, rate_difference, success_rate
from nbflow.statistics.times import Survival, logrank, passages, survival

__all__ = [
    "Equivalence", "Survival", "bootstrap", "equivalence", "equivalence_of_rates", "holm", "logrank",
    "mean_interval", "paired_difference", "paired_equivalence", "passages", "rate_difference", "success_rate",
    "survival",
]  # fmt: skip
