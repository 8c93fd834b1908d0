"""Print the whole book into one PDF: `make pdf`, which needs Chromium.

Sphinx writes all documents into one page, and the browser prints that with the site's print style:
links lead within the file, and headings become its outline. What a click opens is printed open.
The contents say on which page things are, which the first print tells the second.
"""

import re
import shutil
import sys
from pathlib import Path

from tests.book.browser import launched

PATIENCE = 1_800_000  # milliseconds; a printed page of the book takes a fifth of a second
# Sphinx writes the page into book/, with addresses that begin one folder higher.
WRITTEN = "book/index.html"

STYLE = """
@page { size: A4; margin: 18mm 15mm; }
html { font-size: 12px; }
[id^="document-book/"] + section { break-before: page; }
article pre { font-size: 9.6px; } /* a line of 100 characters fits */
article details > summary { display: none !important; }
.sd-container-fluid { break-before: avoid; break-inside: avoid; }
.pages { break-before: page; }
.pages div { columns: 2; column-gap: 3em; font-size: 0.95em; }
.pages a { display: flex; justify-content: space-between; gap: 1em; text-decoration: none; }
.pages .chapter { font-weight: 600; padding-top: 0.4em; break-after: avoid; }
.pages .section { padding-left: 1.5em; }
"""
PREPARE = """async () => {
    await MathJax.startup.promise;
    const lost = [];
    for (const link of document.querySelectorAll('article a[href]:not([href^="http"])')) {
        link.setAttribute('href', link.hash);
        if (!document.getElementById(link.hash.slice(1))) lost.push(link.outerHTML);
    }
    for (const box of document.querySelectorAll('article details')) box.open = true;
    for (const box of document.querySelectorAll('article .toggle-hidden'))
        box.classList.remove('toggle-hidden');
    return {
        lost,
        formulas: document.querySelectorAll('.math').length,
        typeset: document.querySelectorAll('.math mjx-container').length,
        errors: document.querySelectorAll('mjx-merror').length,
    };
}"""
# Titles of documents, and below those of chapters, which have a number, of their sections.
CONTENTS = """() => {
    const entries = document.createElement('div');
    const enter = (title, kind) => {
        title.id = `entry-${entries.childElementCount}`;
        const entry = document.createElement('a');
        entry.href = `#${title.id}`;
        entry.className = kind;
        const words = document.createElement('span');
        words.append(...title.cloneNode(true).childNodes);
        words.querySelector('.headerlink')?.remove();
        entry.append(words, document.createElement('output'));
        entries.append(entry);
    };
    const documents = [...document.querySelectorAll('[id^="document-book/"] + section')];
    for (const one of documents) {
        const title = one.querySelector('h1, h2, h3');
        enter(title, 'chapter');
        if (!title.querySelector('.section-number')) continue;
        for (const section of one.querySelectorAll(':scope > section > h3'))
            enter(section, 'section');
    }
    const contents = document.createElement('nav');
    contents.className = 'pages';
    contents.innerHTML = '<h2>Contents</h2>';
    contents.append(entries);
    documents[0].parentElement.before(contents);
}"""
NUMBER = """(pages) => document.querySelectorAll('.pages output').forEach(
    (place, i) => { place.textContent = pages[i]; })"""
FOOTER = '<div style="width: 100%; text-align: center; font-size: 8px" class="pageNumber"></div>'


def pages(printed: bytes) -> list[int]:
    """The page on which each entry of the contents lies, found in a PDF as Chromium writes it."""
    leaves = re.findall(rb"\n(\d+) 0 obj\n<</Type /Page\n", printed)
    places = dict(re.findall(rb"/entry-(\d+) \[(\d+) 0 R", printed))
    return [1 + leaves.index(places[b"%d" % i]) for i in range(len(places))]


def print_book(folder: Path, target: Path) -> None:
    """Print the one page of the book, which Sphinx wrote into a folder."""
    shutil.copy(folder / WRITTEN, folder / "whole.html")
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.add_init_script("localStorage.setItem('mode', 'light')")
        page.goto((folder / "whole.html").resolve().as_uri())
        page.add_style_tag(content=STYLE)
        found = page.evaluate(PREPARE)
        assert found["typeset"] == found["formulas"] > 1000, found
        assert found["errors"] == 0, found
        assert found["lost"] == [], found
        page.evaluate(CONTENTS)
        for _ in range(2):
            page.pdf(
                path=target,
                prefer_css_page_size=True,
                outline=True,
                tagged=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
            )
            found = pages(target.read_bytes())
            assert found == sorted(found), found
            page.evaluate(NUMBER, found)


if __name__ == "__main__":
    print_book(Path(sys.argv[1]), Path(sys.argv[2]))
