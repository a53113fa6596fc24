"""How the site of gradlab is built: `make docs`."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from _generate.inventories import inventories  # noqa: E402
from gradlab import __version__  # noqa: E402

project = "gradlab"
author = "The gradlab authors"
copyright = "The gradlab authors, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx-mathjax-offline",  # formulas need no network
    "sphinxcontrib.bibtex",
    "_generate",  # pages made from the classes; see _generate/__init__.py
]
root_doc = "index"
exclude_patterns = ["_build", "_generate", "Thumbs.db", ".DS_Store"]

# A reference that leads nowhere is a warning, and `make docs` fails on a warning.
nitpicky = True
nitpick_ignore_regex = [
    # Types that have no page anywhere: variables of types, shapes of jaxtyping, and the types of
    # libraries whose names stand in signatures only.
    ("py:.*", r"(.*\.)?(Own|T|Rows)"),
    ("py:.*", r"(jaxtyping|typer|tqdm|distributed|concurrent)\..*"),
    # Classes that are private, or stand in a private module.
    ("py:.*", r"gradlab\.(.*\.)?_\w+(\..*)?"),
    # A string annotation that holds a bracket is read up to the bracket.
    ("py:.*", r"(dict|tuple)\[str"),
]

# --- look -------------------------------------------------------------------------------------
# furo: one column of text that is readable on a phone, a light and a dark side, no file from
# another server, and nothing to configure. pydata-sphinx-theme has a bar of sections on top, which
# this site with its dozen pages does not need.
html_theme = "furo"
html_title = f"gradlab {version}"
html_static_path = ["_static"]
html_css_files = ["gradlab.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0072B2", "color-brand-content": "#0072B2"},
    "dark_css_variables": {"color-brand-primary": "#56B4E9", "color-brand-content": "#56B4E9"},
}
pygments_style = "friendly"
mathjax_path = "mathjax/tex-chtml.js"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- pages ------------------------------------------------------------------------------------
nb_execution_mode = "off"  # notebooks are stored with their outputs, and a test runs them
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
bibtex_bibfiles = ["../gradlab/references.bib"]
bibtex_default_style = "alpha"
bibtex_reference_style = "author_year"

# --- docstrings -------------------------------------------------------------------------------
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # types stand in the signature
napoleon_use_rtype = False
napoleon_custom_sections = [("Declares", "params_style")]
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# Other projects' inventories are text files in docs/inventories, cut to the names that are used. So
# a build asks no other server, and a name that is missing from them is a warning like any other.
intersphinx_mapping = inventories(DOCS / "inventories", DOCS / "_build" / "inventories")
