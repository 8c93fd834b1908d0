"""MathJax from the site itself, so that mathematics is rendered with no outside request.

The files come from the package sphinx-mathjax-offline when the site is built. The part that
renders TeX, its fonts, and the TeX extensions that it loads on demand suffice: 2 MB of 24.
"""

import shutil
from importlib.metadata import files
from pathlib import Path, PurePosixPath

PACKAGE = "sphinx-mathjax-offline"
ROOT = PurePosixPath(PACKAGE, "static", "mathjax")
WANTED = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2/*", "input/tex/extensions/*")


def copy_mathjax(app, error):
    if error or app.builder.format != "html":
        return
    for file in files(PACKAGE) or ():
        if not file.is_relative_to(ROOT):
            continue
        inside = file.relative_to(ROOT)
        if any(inside.match(pattern) for pattern in WANTED):
            target = Path(app.outdir, "_static", "mathjax", inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


def setup(app):
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
