"""The site of the documentation: ``make docs``, without a network, from pages of the whole project.

The source folder is the root of the project, so that links between pages hold in a checkout and in
the site alike.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(  # for the kernels that run the tutorials
    filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from speechbrain_clsp import __version__  # noqa: E402 - below the path that it needs

project = "speechbrain-clsp"
author = "The speechbrain-clsp contributors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "api_pages",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "recipes/**/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = [".*", "data", "results", "build", "docs/_build", "**/__pycache__"]

# Only names of this package have to be known; types in docstrings are words.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!speechbrain_clsp\.).*")]

# Markdown
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "none"

# Tutorials run when their pages are read; CLSP_DOCS_EXECUTION=off shows their code alone.
nb_execution_mode = os.environ.get("CLSP_DOCS_EXECUTION", "force")
nb_execution_timeout = 900  # seconds of a cell: the first one trains a model
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # progress bars and warnings of libraries
suppress_warnings = ["myst-nb.lexer"] if nb_execution_mode == "off" else []

# API pages
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_use_rtype = False

# Two small inventories, kept here, so that no network is needed; SpeechBrain's and torch's own
# are larger and change with every version.
intersphinx_mapping = {
    "torch": ("https://docs.pytorch.org/docs/stable", "docs/inventories/torch.inv"),
    "speechbrain": (
        "https://speechbrain.readthedocs.io/en/latest",
        "docs/inventories/speechbrain.inv",
    ),
}

html_theme = "furo"
html_title = f"speechbrain-clsp {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = html_show_copyright = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
