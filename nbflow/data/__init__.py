"""Readers of users' own files, and the batches and tasks made of them: piano rolls and text.

The package ships no data. Every reader takes a path, of a file, several or a folder, tells the format by what is in a
file, reads no more than ``max_bytes``, runs nothing of what it reads, and answers a file that it cannot use with one
``ValueError`` that names the file, what was found, what is wanted and the remedy.

Examples
--------
>>> import numpy as np
>>> from nbflow.data import piano_roll_batches
>>> scale = np.eye(88, dtype=np.uint8)[39:47]  # eight frames of one note each
>>> [batch.inputs.shape for batch in piano_roll_batches([scale], batch_size=2, length=5)]
[(5, 2, 88)]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nbflow.data.piano_rolls import PianoRolls, read_piano_rolls, read_pieces
from nbflow.data.roll_batches import evaluation_batches, piano_roll_batches
from nbflow.data.text import Text, read_text
from nbflow.data.text_files import TextFiles, read_text_files
from nbflow.data.text_streams import text_batches

if TYPE_CHECKING:
    from nbflow.data.array_task import ArrayTask
    from nbflow.data.arrays import arrays
    from nbflow.data.tasks import PianoRollTask, TextTask
    from nbflow.data.text_files_task import TextFilesTask

__all__ = [
    "ArrayTask",
    "PianoRollTask",
    "PianoRolls",
    "Text",
    "TextFiles",
    "TextFilesTask",
    "TextTask",
    "arrays",
    "evaluation_batches",
    "piano_roll_batches",
    "read_piano_rolls",
    "read_pieces",
    "read_text",
    "read_text_files",
    "text_batches",
]


if not TYPE_CHECKING:
    # The readers need no compiler, and do not load it.
    _TASKS = {
        "ArrayTask": "array_task", "arrays": "arrays", "PianoRollTask": "tasks", "TextTask": "tasks",
        "TextFilesTask": "text_files_task",
    }  # fmt: skip

    def __getattr__(name: str) -> Any:
        if name not in _TASKS:
            raise AttributeError(f"module 'nbflow.data' has no attribute {name!r}")
        return getattr(importlib.import_module(f"nbflow.data.{_TASKS[name]}"), name)
