"""Pictures on dark pages: each example is drawn a second time, in dark, and shown instead of its light picture."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_gallery.utils import scale_image

from nbflow import plot


def dark_of(path: str) -> str:
    """Return where the dark picture of a light one lies."""
    return re.sub(r"\.png$", "_dark.png", path)


def draw(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Take the figure that a block of an example has left under the name `figure`, and run the block again in dark."""
    names = block_vars["example_globals"]
    if "figure" not in names:
        return ""
    path = Path(next(block_vars["image_path_iterator"]))
    names.pop("figure").savefig(path, dpi=110)
    with plot.theme("dark"), contextlib.redirect_stdout(io.StringIO()):
        exec(compile(block[1], block_vars["src_file"], "exec"), names)
    dark, thumbnail = path.with_name(dark_of(path.name)), f"{path.stem.removesuffix('_001')}_thumb_dark.png"
    names.pop("figure").savefig(dark, dpi=110)
    (path.parent / "thumb").mkdir(exist_ok=True)
    scale_image(str(dark), str(path.parent / "thumb" / thumbnail), *gallery_conf["thumbnail_size"])
    words, place = names.pop("alternative_text"), path.relative_to(gallery_conf["src_dir"]).as_posix()
    return f"\n.. image:: /{place}\n    :alt: {words}\n    :class: sphx-glr-single-img\n\n"


def show(app: Sphinx, doctree: nodes.document) -> None:
    """Put beside each picture the dark one that there is of it; a page shows one of them."""
    for light in list(doctree.findall(nodes.image)):
        uri = dark_of(light["uri"])
        if uri != light["uri"] and Path(app.env.relfn2path(uri)[1]).exists():
            dark = light.deepcopy()
            dark["uri"] = uri
            light["classes"] = [*light["classes"], "only-light"]
            dark["classes"] = [*dark["classes"], "only-dark"]
            light.parent.insert(light.parent.index(light) + 1, dark)


def _get_sg_image_scraper() -> Any:
    """Be a name that sphinx-gallery knows how to ask."""
    return draw


def setup(app: Sphinx) -> dict[str, bool]:
    """Listen to what is read, before Sphinx collects its pictures."""
    app.connect("doctree-read", show, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
