"""What every reader of piano rolls makes: arrays of 0 and 1 for the 88 keys of a piano, and their parts."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 21, 108
NOTES = HIGHEST - LOWEST + 1
SPLITS = ("train", "valid", "test")

Roll: TypeAlias = NDArray[np.uint8]
Pieces: TypeAlias = tuple[Roll, ...]

# What to do with a pickle, wherever one comes up.
PICKLED = (
    "Pickles can run code and are not read: convert it to JSON where you trust it, json.dump(pickle.load(file), out), "
    "or write np.savez(path, *rolls)."
)
