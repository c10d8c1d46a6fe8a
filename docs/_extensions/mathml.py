"""Equations as MathML, by docutils: what browsers set themselves, with no script and no font of a page's own."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)


def _bars(found: re.Match[str]) -> str:
    """Say which side a bar of a norm is on: else a browser takes it for an operator, and moves its exponent."""
    form = "prefix" if found[1] else "postfix"
    return f'<mo form="{form}" stretchy="false" lspace="0" rspace="0">{found[2]}</mo>'


def _set(node: Any, *, block: bool) -> str:
    """Return an equation as MathML; what cannot be set is a warning, and so ends the build."""
    text = node.astext()
    if block and r"\\" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}} {text} \end{{aligned}}"
    try:
        return re.sub(r'<mo( class="mathopen")?>([|‖])</mo>', _bars, str(tex2mathml(text, as_block=block)))
    except MathError as error:
        logger.warning("equation cannot be set: %s in %s", error, text, location=node)
        return str(nodes.literal(text, text))


def inline(self: Any, node: Any) -> None:
    """Write an equation within a line."""
    self.body.append(f'<span class="math">{_set(node, block=False)}</span>')
    raise nodes.SkipNode


def display(self: Any, node: Any) -> None:
    """Write an equation on lines of its own, in a box that scrolls where a screen is narrow."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({node["number"]})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(f"{_set(node, block=True)}</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer it as a renderer of equations."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
