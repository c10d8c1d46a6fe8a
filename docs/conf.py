"""How `make docs` builds the site: offline, with nothing from elsewhere, and every warning an error."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))
os.environ.setdefault("NBFLOW_QUIET", "1")

from members import own  # noqa: E402
from sphinx.ext import autosummary  # noqa: E402

import nbflow  # noqa: E402

project = "nbflow"
author = "nbflow contributors"
version = release = nbflow.__version__
project_copyright = author
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "dark",
    "mathml",
    "pages",
    "units",
    "whole",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/*.ipynb", "gallery/*.py"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
nitpicky = False
default_role = "py:obj"

# Equations are MathML, which browsers set themselves: no script, no font, no network.
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "colon_fence"]
myst_heading_anchors = 4
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

# The reference comes from the docstrings.
autosummary_generate = True
autosummary_context = {"own": own}
suppress_warnings = ["config.cache"]  # it holds a function
autosummary_ignore_module_all = False
# A summary is a first sentence, and no sentence ends here.
autosummary.WELL_KNOWN_ABBREVIATIONS += ("eq.",)
autodoc_typehints = "none"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "nbflow"
html_static_path = ["_static"]
html_css_files = ["nbflow.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars: dict[str, list[str]] = {"index": [], "five_minutes": [], "concepts": [], "overview": []}

# A prompt is not copied, nor is what it answers.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Some examples run in any build, and all with GALLERY=all; the others are shown without their pictures.
SMALL = ("plot_vanishing", "plot_one_clip", "plot_cliff", "plot_eigenvalues")

sphinx_gallery_conf = {
    "examples_dirs": [str(HERE.parent / "examples" / "gallery")],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"plot_" if os.environ.get("GALLERY") == "all" else "|".join(SMALL),
    "image_scrapers": ("dark",),
    "reset_modules": (),
    "doc_module": ("nbflow",),
    "backreferences_dir": "api/examples",
    "reference_url": {},
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "plot_gallery": True,
    "abort_on_example_error": True,
    "copyfile_regex": r".*\.rst",
}

warnings.filterwarnings("error", module="nbflow")
