"""Print the whole book into one PDF: `make pdf`, which needs Chromium.

Sphinx writes all documents into one page, and the browser prints that with the site's print style:
links lead within the file, and headings become its outline. What a click opens is printed open.
"""

import shutil
import sys
from pathlib import Path

from tests.book.browser import launched

PATIENCE = 1_800_000  # milliseconds; a printed page of the book takes a fifth of a second
# Sphinx writes the page into book/, with addresses that begin one folder higher.
WRITTEN = "book/index.html"

STYLE = """
@page { size: A4; margin: 18mm 17mm; }
html { font-size: 12px; }
[id^="document-book/"] + section { break-before: page; }
article details > summary { display: none !important; }
.sd-container-fluid { break-before: avoid; break-inside: avoid; }
"""
PREPARE = """async (written) => {
    await MathJax.startup.promise;
    for (const link of document.querySelectorAll(`a[href^="${written}#"]`))
        link.setAttribute('href', link.getAttribute('href').slice(written.length));
    for (const box of document.querySelectorAll('article details')) box.open = true;
    for (const box of document.querySelectorAll('article .toggle-hidden'))
        box.classList.remove('toggle-hidden');
    return {
        formulas: document.querySelectorAll('.math').length,
        typeset: document.querySelectorAll('.math mjx-container').length,
        errors: document.querySelectorAll('mjx-merror').length,
        outside: document.querySelectorAll(`article a[href^="${written}"]`).length,
    };
}"""
FOOTER = '<div style="width: 100%; text-align: center; font-size: 8px" class="pageNumber"></div>'


def print_book(folder: Path, target: Path) -> None:
    """Print the one page of the book, which Sphinx wrote into a folder."""
    shutil.copy(folder / WRITTEN, folder / "whole.html")
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script("localStorage.setItem('mode', 'light')")
        page.goto((folder / "whole.html").resolve().as_uri())
        page.add_style_tag(content=STYLE)
        found = page.evaluate(PREPARE, WRITTEN)
        assert found["typeset"] == found["formulas"] > 1000, found
        assert found["errors"] == found["outside"] == 0, found
        page.pdf(
            path=target,
            prefer_css_page_size=True,
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
        )


if __name__ == "__main__":
    print_book(Path(sys.argv[1]), Path(sys.argv[2]))
