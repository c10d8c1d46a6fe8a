"""The directive `units`: the names of a package of units, and what the docstring of each file says."""

from __future__ import annotations

import importlib
import inspect

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx


class Units(Directive):
    """`.. units:: cells` lists nbflow.names("cells")."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a list of definitions."""
        import nbflow

        (package,) = self.arguments
        lines: list[str] = []
        for name in nbflow.names(package):
            words = inspect.cleandoc(getattr(getattr(nbflow, package), name).__doc__ or "")
            first = " ".join(words.split("\n\n")[0].split())
            lines += [f"``{name}``", f"    {first.replace('*', chr(92) + '*').replace('|', chr(92) + '|')}", ""]
        module = importlib.import_module(f"nbflow.{package}")
        box = nodes.container(classes=["units"])
        self.state.nested_parse(StringList(lines, source=module.__file__ or ""), 0, box)
        return [box]


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer it."""
    app.add_directive("units", Units)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
