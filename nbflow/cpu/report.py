"""Columns of what a clip reports for each replica. Norms come as (root, scale), see `nbflow.cpu.norm`."""

COLUMNS = ("norm", "scale", "clipped norm", "clipped scale", "inner product", "clipped entries", "finite")
NORM, SCALE, CLIPPED_NORM, CLIPPED_SCALE, INNER, ENTRIES, FINITE = range(len(COLUMNS))
