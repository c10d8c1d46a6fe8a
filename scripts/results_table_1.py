"""Table 1 of Pascanu, Mikolov, Bengio (2013), from scripts/table_1.py."""

from __future__ import annotations

from collections.abc import Callable

import table_1
import table_1_report
from results_markdown import section
from results_stores import Stores


def published_table(stores: Stores) -> str:
    """Return the section of table 1 of Pascanu, Mikolov, Bengio (2013)."""
    final, _ = stores.chosen("table_1", table_1.TUNING)
    return section(
        "Table 1 of Pascanu, Mikolov, Bengio (2013): piano rolls",
        "python scripts/table_1.py --data Piano_midi.mat Nottingham.mat",
        "design-table-1-piano-rolls",
        [*table_1_report.tables(final), *(f"**{words}**" for words in table_1_report.verdicts(final))],
        "![validation over epochs, and test losses beside the published ones](images/table_1.png)",
    )


def made_of(stores: Stores) -> dict[str, Callable[[], str]]:
    """Return how the section is made; nothing of it without runs."""
    return {"table_1": (lambda: published_table(stores)) if "table_1" in stores else str}
