"""The documentation site: `make docs`, or `sphinx-build -W -n -c docs . docs/_build`.

Sphinx, because it checks references strictly and offline and reads docstrings; MkDocs Material is in maintenance mode.
The source folder is the repository, so that links between README, docs and notebooks are the same on GitHub and here.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

project = "iftplan"
author = "the iftplan developers"
copyright = author  # no year, so that a build is reproducible
html_title = project
language = "en"

extensions = [
    "myst_nb",  # the pages are Markdown, the notebooks hold their outputs
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    # ours, in docs/_ext
    "contents",
    "derivations",
    "docstrings",
    "formats",
    "helptexts",
    "mathml",
    "reference",
]

root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/**", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
exclude_patterns = [".*", "docs/_*", "**/.ipynb_checkpoints"]
html_additional_pages = {"index": "forward.html"}  # the front page lies in docs/
templates_path = ["_templates"]

# --- Markdown: what GitHub shows too ---------------------------------------------------------------------

myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
myst_update_mathjax = False
nb_execution_mode = "off"  # tests run the notebooks
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/latex", 0), ("html", "text/html", 1)]
myst_heading_anchors = 4  # the anchors that GitHub makes
suppress_warnings = ["misc.highlighting_failure"]  # elided console output is no valid program
highlight_language = "text"

# --- Python: every public name, from its docstring -------------------------------------------------------

autodoc_member_order = "bysource"
default_role = "code"  # docstrings are written for people: `x` is code
python_maximum_signature_line_length = 80
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
_OTHERS = "collections|concurrent|matplotlib|fractions|pathlib|types|typing|torch|pytorch_lightning|transformers|pydantic|enum"
nitpick_ignore_regex = [
    ("py:.*", rf"({_OTHERS})\..*"),  # libraries, whose pages are not here
    (
        "py:.*",
        r"nn\.Module|InitVar|(iftplan\..*\.)?(Model|Number|Fans|Operator|Stack|Table|Heads|MethodConfig"
        r"|Sparsity|Costs|Asked|CloseBy|Optimizer|MaskUpdates|Objective|Pass|Criterion|Record|_Frame"
        r"|Rounding|Pointwise|Redistribution|Runs|Taken|Budget|Formula|Decay|Given|How|Loss|Mixture|BlockGrid|BlockMask|OptimizerName|FactorGrid|PruningMethod|Inputs|Average|Stage|DeviceMemory|PruningCurve|Spread|UpdateReport|MaskPolicy|Kind|Placement|Capacity)",
    ),  # names of types within a module
]

# --- the look: light and dark, nothing fetched -----------------------------------------------------------

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["iftplan.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#1d5fa8", "color-brand-content": "#1d5fa8"},
    "dark_css_variables": {"color-brand-primary": "#8ab8f0", "color-brand-content": "#8ab8f0"},
}
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
copybutton_remove_prompts = True
copybutton_selector = (
    "div.highlight-console pre, div.highlight-python pre, div.highlight-bash pre, div.highlight-sh pre"
)
