"""The built site in a real browser: light and dark, desktop and telephone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.book.browser import MISSING, WHY
from tests.book.chapter import CHAPTERS, Chapter
from tests.book.site import DOCUMENTS, GENERATED, SITE, built

DESKTOP, TELEPHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# What sphinx-book-theme 1.1.4 does wrong on every page: the search button is named otherwise than
# it is labelled, and parts of the page lie outside any landmark.
OF_THE_THEME = {"label-content-name-mismatch", "region"}
NAMES = {f"book/{chapter.name}" for chapter in CHAPTERS}
OTHER_PAGES = [name for name in (*DOCUMENTS, *GENERATED) if name not in NAMES]
# Preloading style sheets, axe looks for those that they import in the wrong folder.
AXE = {"resultTypes": ["violations"], "preload": False}
CONTRAST = AXE | {"runOnly": ["color-contrast"]}
THE_REST = AXE | {"rules": {"color-contrast": {"enabled": False}}}
SCROLLS = AXE | {"runOnly": ["scrollable-region-focusable"]}
FIRST_IN_A_LINE = """all => all.filter(mark => {
    const before = document.createRange();
    before.setStart(mark.closest('p, li, dd, td'), 0);
    before.setEndBefore(mark);
    if (!before.toString().trim()) return false;
    const bottoms = [...before.getClientRects()].map(line => line.bottom);
    return mark.getBoundingClientRect().top > Math.max(...bottoms) - 2;
}).map(mark => mark.id)"""
VISIBLE = """all => all.filter(a => a.checkVisibility({visibilityProperty: true}))
                       .map(a => a.outerHTML)"""
THEME = "document.documentElement.dataset.theme"
STILL = "*, ::before, ::after { transition: none !important; }"  # or colours would be on their way
# Of texts that look alike in both themes three are left: axe takes long for every single one.
NOTE_LOOKS = """() => {
    const grounds = new Map([[document.documentElement, '']]);
    const ground = a => {
        if (!grounds.has(a)) {
            const {backgroundColor: colour, backgroundImage: image, opacity} = getComputedStyle(a);
            const own = /^rgba.*, 0\\)$/.test(colour) && image === 'none' && opacity === '1';
            grounds.set(a, ground(a.parentElement) + (own ? '' : colour + image + opacity));
        }
        return grounds.get(a);
    };
    for (const a of document.body.querySelectorAll('*')) {
        if (![...a.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
        const {color, fontSize, fontWeight, textShadow} = getComputedStyle(a);
        const seen = a.checkVisibility({opacityProperty: true, visibilityProperty: true});
        const where = a.closest('header, nav, aside, article, footer')?.className;
        a.looks = [a.looks, color, fontSize, fontWeight, textShadow, ground(a), seen, where].join();
    }
}"""
LEAVE_THREE = """() => {
    const left = {};
    for (const a of document.body.querySelectorAll('*')) {
        if (!a.looks || (left[a.looks] = (left[a.looks] ?? 0) + 1) <= 3) continue;
        for (const node of [...a.childNodes]) if (node.nodeType === 3) node.remove();
    }
    for (const a of document.body.querySelectorAll('*')) if (!a.textContent.trim()) a.remove();
}"""
TYPESET = "async () => { if (window.MathJax) await MathJax.startup.promise; }"

if MISSING:
    pytest.skip(WHY, allow_module_level=True)


class Quiet(SimpleHTTPRequestHandler):
    """A server that does not print every request."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The site, served on this machine."""
    built(DOCUMENTS[0])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Visit:
    """A page, opened by a reader whose system is light, and what went wrong on the way."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.address = address
        self.context = browser.new_context(viewport=DESKTOP)  # pyright: ignore[reportArgumentType]
        # The theme complains of readers who have not chosen, and then takes what their system has.
        self.context.add_init_script("localStorage.mode ??= 'auto'; localStorage.theme ??= 'light'")
        self.context.set_default_timeout(120_000)  # milliseconds, for machines with other work
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self.see)
        self.page.on("response", self.receive)

    def hear(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def see(self, request) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.complaints.append(f"outside request: {request.url}")

    def receive(self, response) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.address}/{path}", wait_until="load")
        self.page.add_style_tag(content=STILL)
        self.page.evaluate(TYPESET)
        return self.page

    def turn(self, theme: Literal["light", "dark"]) -> None:
        """What happens to an open page at dusk and at dawn."""
        self.page.emulate_media(color_scheme=theme)
        self.page.wait_for_function(f"{THEME} === '{theme}'")


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address)
    yield visit
    visit.context.close()


def found(page: Page, options: dict) -> list[str]:
    """What axe finds wrong, but for what the theme does wrong everywhere."""
    violations = Axe().run(page, options=options).response["violations"]
    return [
        f"{v['impact']} {v['id']}: {v['help']} at {[n['target'] for n in v['nodes']][:3]}"
        for v in violations
        if v["id"] not in OF_THE_THEME
    ]


def too_wide(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def mathematics(page: Page) -> dict[str, int]:
    """Formulas in the source, and rendered, and those that MathJax could not read or has cut."""
    cut = "all => all.filter(a => a.scrollHeight > a.clientHeight).length"
    count = "(selector) => document.querySelectorAll(selector).length"
    return {
        "written": page.evaluate(count, ".math"),
        "rendered": page.evaluate(count, ".math mjx-container"),
        "errors": page.evaluate(count, "mjx-merror, [data-mjx-error]"),
        "cut": page.locator("mjx-container[display]").evaluate_all(cut),
    }


def is_clean(visit: Visit) -> None:
    page = visit.page
    assert visit.complaints == []
    assert not too_wide(page)
    math = mathematics(page)
    assert math["errors"] == math["cut"] == 0
    assert math["rendered"] == math["written"]
    page.set_viewport_size(TELEPHONE)  # pyright: ignore[reportArgumentType]
    page.wait_for_timeout(300)
    assert not too_wide(page)
    assert found(page, SCROLLS) == []
    assert page.locator(".bd-sidebar-secondary a").evaluate_all(VISIBLE) == []
    page.set_viewport_size(DESKTOP)  # pyright: ignore[reportArgumentType]
    assert visit.complaints == []


def has_mathematics_and_pictures(page: Page, chapter: Chapter) -> None:
    assert mathematics(page)["rendered"] > 50
    sizes = page.evaluate(
        """async () => {
            const images = [...document.querySelectorAll('article img')];
            for (const image of images) { image.loading = 'eager'; await image.decode(); }
            return images.map(image => image.naturalWidth);
        }"""
    )
    assert len(sizes) >= len(chapter.figures)
    assert all(sizes)


def marks_stay_with_what_they_mark(visit: Visit) -> None:
    page = visit.page
    for width in (390, 768, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.locator(".claim-place").evaluate_all(FIRST_IN_A_LINE) == [], width
    page.set_viewport_size(DESKTOP)  # pyright: ignore[reportArgumentType]


def prints_as_text_with_nothing_cut_off(visit: Visit) -> None:
    page = visit.page
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of 1 cm
    for beside in (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article"):
        assert not page.locator(beside).first.is_visible(), beside
    cut = """all => all.filter(a => a.offsetParent && a.scrollWidth > a.clientWidth + 1
                       && getComputedStyle(a).overflowX !== 'visible').map(a => a.outerHTML)"""
    assert page.locator("article :is(pre, .highlight, .cell_output)").evaluate_all(cut) == []
    assert not too_wide(page)
    visible = "all => all.map(a => a.checkVisibility())"
    assert all(page.locator("article figure img").evaluate_all(visible))
    assert not any(page.locator("article .player").evaluate_all(visible))
    page.emulate_media(media="screen")
    page.set_viewport_size(DESKTOP)  # pyright: ignore[reportArgumentType]


def figures_that_move_stand_in_for_their_pictures(page: Page, chapter: Chapter) -> None:
    names = page.locator("div.interactive").evaluate_all("all => all.map(a => a.dataset.for)")
    assert names == [html["data-for"] for html in chapter.interactives]
    for name in names:
        figure = page.locator(f"figure#{name}")
        assert figure.locator("svg").count() > 0
        assert not figure.locator("img").is_visible()
        slider, says = figure.get_by_role("slider"), figure.locator(".says")
        before = says.inner_text()
        slider.press("End")
        assert says.inner_text() != before


def workbenches_stand_in_for_their_pictures(page: Page, chapter: Chapter) -> None:
    names = page.locator("div.workbench").evaluate_all("all => all.map(a => a.dataset.for)")
    assert names == [html["data-for"] for html in chapter.workbenches]
    for name in names:
        figure = page.locator(f"figure#{name}")
        assert not figure.locator("img").is_visible()
        says = figure.locator(".says")
        before = says.inner_text()
        figure.get_by_role("button", name="Write").first.press("Enter")
        assert says.inner_text() != before


def solutions_open_by_click(page: Page, chapter: Chapter) -> None:
    solutions = page.locator("div.solution.dropdown")
    assert solutions.count() == len(chapter.named("solution"))
    # The middle of a long title is a link to its exercise.
    codes, buttons = solutions.locator("pre"), solutions.locator("button.toggle-button")
    visible = "all => all.map(a => a.checkVisibility({visibilityProperty: true}))"
    assert not any(codes.evaluate_all(visible))
    buttons.first.click()
    codes.first.wait_for(state="visible", timeout=2000)
    buttons.evaluate_all("([_, ...others]) => others.forEach(a => a.click())")
    assert all(codes.evaluate_all(visible))


def all_can_read(visit: Visit) -> None:
    assert found(visit.page, THE_REST) == []
    leave_three_of_a_kind(visit)
    for theme in ("light", "dark"):
        visit.turn(theme)
        assert found(visit.page, CONTRAST) == []


def leave_three_of_a_kind(visit: Visit) -> None:
    """Of texts that look alike in both themes: axe takes long for every single one."""
    for theme in ("dark", "light"):
        visit.turn(theme)
        visit.page.evaluate(NOTE_LOOKS)
    visit.page.evaluate(LEAVE_THREE)


def all_can_read_the_text(visit: Visit) -> None:
    """But for formulas and code, which are most of a page and alike on every one."""
    empty = "all => all.forEach(a => a.replaceChildren())"
    visit.page.locator("mjx-container, .highlight").evaluate_all(empty)
    all_can_read(visit)


@pytest.mark.parametrize("document", OTHER_PAGES)
def test_a_page_is_clean(visit: Visit, document: str) -> None:
    visit.open(f"{document}.html")
    is_clean(visit)
    all_can_read_the_text(visit)


# Opening a chapter takes most of the time, so that it is opened once for all that it has to show.
@pytest.mark.parametrize("chapter", CHAPTERS, ids=str)
def test_a_chapter_is_clean_and_works(visit: Visit, chapter: Chapter) -> None:
    page = visit.open(f"book/{chapter.name}.html")
    is_clean(visit)
    has_mathematics_and_pictures(page, chapter)
    marks_stay_with_what_they_mark(visit)
    prints_as_text_with_nothing_cut_off(visit)
    figures_that_move_stand_in_for_their_pictures(page, chapter)
    workbenches_stand_in_for_their_pictures(page, chapter)
    solutions_open_by_click(page, chapter)
    assert visit.complaints == []
    all_can_read_the_text(visit)


def test_formulas_and_code_can_be_read(visit: Visit) -> None:
    """One style sheet serves those of all pages: forty of each answer for them."""
    page = visit.open(f"book/{CHAPTERS[0].name}.html")
    assert page.locator(".highlight span").count() > 500
    assert page.locator("mjx-container").count() > 50
    empty_others = "all => all.slice(40).forEach(a => a.replaceChildren())"
    for look in ("mjx-container", ".highlight"):
        page.locator(look).evaluate_all(empty_others)
    all_can_read(visit)


def test_the_dark_theme_is_printed_light(visit: Visit) -> None:
    page = visit.open("book/index.html")
    visit.turn("dark")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(THEME) == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(THEME) == "dark"


def test_the_next_page_has_the_theme_that_was_chosen(visit: Visit) -> None:
    page = visit.open("book/index.html")
    button = page.locator(".theme-switch-button").first
    while page.evaluate("document.documentElement.dataset.mode") != "dark":
        button.click()
    page = visit.open(f"book/{CHAPTERS[0].name}.html")
    assert page.evaluate(THEME) == "dark"
    assert visit.complaints == []


def test_search_finds_what_the_book_is_about(visit: Visit) -> None:
    page = visit.open("search.html?q=linear+attention")
    page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    links = page.locator("#search-results ul.search li a").evaluate_all("as => as.map(a => a.href)")
    assert any("01_linear_attention" in link for link in links)
    summaries = page.locator("#search-results .context")
    summaries.first.wait_for()
    assert not any(".pdf" in summary for summary in summaries.all_inner_texts())
    assert visit.complaints == []


def test_the_site_can_be_read_without_a_server(browser: Browser) -> None:
    visit = Visit(browser, SITE.as_uri())
    math = mathematics(visit.open(f"book/{CHAPTERS[0].name}.html"))
    assert 50 < math["rendered"] == math["written"]
    page = visit.open("search.html?q=crosstalk")
    page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    links = page.locator("#search-results ul.search li a").evaluate_all("as => as.map(a => a.href)")
    assert any(link.startswith(SITE.as_uri()) for link in links)
    visit.context.close()


def test_the_front_page_leads_to_the_book(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.address}/")
    page.wait_for_url("**/book/index.html")
    assert "Associative Memory" in page.title()


BROKEN = """data:text/html,<title>x</title><body style="width: 3000px"><img src="nothing.png">
<script>console.error('ouch')</script>"""


def test_one_text_among_many_that_cannot_be_read_in_the_dark_is_noticed(visit: Visit) -> None:
    page = visit.open("book/index.html")
    page.locator("article p").last.evaluate("p => p.className = 'last'")
    page.add_style_tag(content="html[data-theme=dark] .last { color: #333 }")
    with pytest.raises(AssertionError, match="color-contrast"):
        all_can_read(visit)


def test_a_broken_page_is_noticed(visit: Visit) -> None:
    visit.page.goto(BROKEN)
    visit.page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert too_wide(visit.page)
    assert any("image-alt" in violation for violation in found(visit.page, THE_REST))
    assert "console: ouch" in visit.complaints
    assert "outside request: http://127.0.0.1:9/" in visit.complaints
