"""The memory that the reader writes into: its numbers against the rules of the library."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

from assocmem.book.workbench import GATES, RIDGE, Pair, workbench
from assocmem.rules import RULES, Write
from tests.book.browser import script, with_figure

PAIRS = [
    Pair("k₁", (1.0, 0.0), (2.0, 1.0)),
    Pair("k₂", (0.6, 0.8), (-1.0, 3.0)),
    Pair("k₁", (1.0, 0.0), (0.0, 1.0)),
    Pair("k₃", (0.0, 2.0), (1.0, -1.0)),
]
KEYS = {pair.key: torch.tensor(pair.k, dtype=torch.float64) for pair in PAIRS}
ROUNDING = 6e-4  # half of the third decimal, and four digits of what is larger than 10


def output(**changes) -> str:
    arguments = {"figure": "fig-x", "pairs": PAIRS, "written": [0, 1, 2], "start": "deltanet"}
    return workbench(**(arguments | changes)).data


# --- what a chapter puts out ---


def test_the_script_gets_pairs_and_rules() -> None:
    script = BeautifulSoup(output(), "html.parser").select_one("div.workbench[hidden] script")
    assert script is not None
    data = json.loads(script.text)
    assert data["pairs"][1] == {"key": "k₂", "k": [0.6, 0.8], "v": [-1.0, 3.0]}
    assert (data["written"], data["start"], data["ridge"]) == ([0, 1, 2], "deltanet", RIDGE)
    assert data["rules"][3] == {
        "name": "gated_deltanet",
        "label": "Gated DeltaNet",
        "gates": ["beta", "decay"],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"written": [0, 4]}, r"written must be positions among 4 pairs, got \[0, 4\]"),
        ({"written": [-1]}, r"written must be positions among 4 pairs, got \[-1\]"),
        ({"start": "titans"}, r"start must be one of \['linear_attention', .*\], got 'titans'"),
        (
            {"pairs": [*PAIRS, Pair("k₂", (0.8, 0.6), (0.0, 0.0))]},
            r"pairs named 'k₂' must share a key, got \(0.8, 0.6\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        output(**changes)


# --- what a browser makes of it ---

SCRIPTS = [script("interactive"), script("workbench")]


def html(theme: str = "light", scripts: Sequence[str] = SCRIPTS) -> str:
    return with_figure(output(), scripts, theme)


def opened(browser: Browser) -> Iterator[Page]:
    with browser.new_page() as page:
        page.set_content(html())
        yield page


page = pytest.fixture(opened)
# For all tests that set everything themselves, as opening a page takes longer than they do.
used_page = pytest.fixture(opened, scope="module")


def number(text: str) -> float | None:
    return None if text == "–" else float(text.replace("−", "-"))


def vector(text: str) -> list[float] | None:
    return None if text == "–" else [float(x.replace("−", "-")) for x in text[1:-1].split(", ")]


def cells(page: Page, name: str) -> list[list[str]]:
    """A table's body, as text."""
    texts = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    return page.locator(f"table.{name} tbody tr").evaluate_all(texts)


def press(page: Page, *numbers: int) -> None:
    """Write pairs by their positions."""
    for n in numbers:
        page.get_by_role("button", name="Write").nth(n).click()


def memories(name: str, numbers: Sequence[int], **gates: float) -> list[torch.Tensor]:
    """The state [2, 2] of the library's rule, transposed, before the writes and after each."""
    writes = [
        Write(
            torch.tensor(PAIRS[n].k, dtype=torch.float64),
            torch.tensor(PAIRS[n].v, dtype=torch.float64),
            ridge=RIDGE,
            **{gate: x for gate, x in gates.items() if gate in GATES[name]},
        )
        for n in numbers
    ]
    rule, state = RULES[name], RULES[name].empty(writes[0])
    found = [rule.memory(state)]
    for write in writes:
        state = rule.step(state, write)
        found.append(rule.memory(state))
    return found


def errors(S: torch.Tensor, numbers: Sequence[int]) -> list[float | None]:
    """‖v − Sᵀk‖ at each key, for the value that was last written under it."""
    newest = {PAIRS[n].key: torch.tensor(PAIRS[n].v, dtype=torch.float64) for n in numbers}
    return [
        (newest[key] - k @ S).norm().item() if key in newest else None for key, k in KEYS.items()
    ]


SETTINGS = [(1.0, 0.9), (0.4, 0.5), (2.3, 1.0)]


def set_slider(page: Page, label: str, value: float) -> None:
    page.get_by_role("slider", name=label).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("numbers", [[0], [0, 1, 2], [1, 3, 0, 2, 2, 1, 0, 3, 3, 1]], ids=str)
@pytest.mark.parametrize(("beta", "decay"), SETTINGS)
def test_its_numbers_are_the_library_s(
    used_page: Page, name: str, numbers: list[int], beta: float, decay: float
) -> None:
    page = used_page
    page.get_by_role("button", name="Reset").click()
    set_slider(page, "Step size", beta)
    set_slider(page, "Decay", decay)
    page.get_by_role("combobox", name="Rule").select_option(name)
    press(page, *numbers)
    visited = memories(name, numbers, beta=beta, decay=decay)
    close = {"abs": ROUNDING, "rel": ROUNDING}

    state = [[number(x) for x in row[1:]] for row in cells(page, "state")]
    assert state == [pytest.approx(row, **close) for row in visited[-1].T.tolist()]

    shown = cells(page, "now")
    assert [vector(row[2]) for row in shown] == [
        pytest.approx((k @ visited[-1]).tolist(), **close) for k in KEYS.values()
    ]
    newest = {PAIRS[n].key: list(PAIRS[n].v) for n in numbers}
    assert [vector(row[1]) for row in shown] == [newest.get(key) for key in KEYS]
    assert [number(row[3]) for row in shown] == [
        x if x is None else pytest.approx(x, **close) for x in errors(visited[-1], numbers)
    ]

    history = cells(page, "history")
    assert [int(row[0]) for row in history] == list(range(1, len(numbers) + 1))[-8:][::-1]
    for row in history:
        n = int(row[0])
        assert row[1].startswith(f"{PAIRS[numbers[n - 1]].key} → ")
        assert [number(x) for x in row[2:]] == [
            x if x is None else pytest.approx(x, **close) for x in errors(visited[n], numbers[:n])
        ]


def test_it_starts_with_the_chapter_s_three_writes(page: Page) -> None:
    assert not page.locator("#fig-x img").is_visible()
    assert page.locator("#fig-x figcaption").is_visible()
    readings = [row[2] for row in cells(page, "now")]
    assert readings[:2] == ["(0, 1)", "(−1.408, 2.136)"]
    says = page.locator(".says").inner_text()
    assert says == "DeltaNet, writes: 3. Error 0 at k₁, 0.955 at k₂."


def test_keys_are_shown_with_their_angles(page: Page) -> None:
    assert [row[0] for row in cells(page, "now")] == ["k₁ at 0°", "k₂ at 53°", "k₃ at 90°"]


def test_errors_have_bars(page: Page) -> None:
    wide = page.locator("table.now .bar").evaluate_all("bars => bars.map(bar => bar.style.width)")
    assert [float(width[:-1]) for width in wide] == pytest.approx(
        [0, 0.9555 / 4 * 100, 0], abs=0.01
    )


def test_a_change_of_rule_replays_the_writes(page: Page) -> None:
    page.get_by_role("combobox", name="Rule").select_option("linear_attention")
    assert [row[2] for row in cells(page, "now")][:2] == ["(1.4, 3.8)", "(0.2, 4.2)"]
    assert len(cells(page, "history")) == 3


@pytest.mark.parametrize("name", GATES)
def test_a_slider_that_the_rule_does_not_use_is_off(page: Page, name: str) -> None:
    page.get_by_role("combobox", name="Rule").select_option(name)
    sliders = [page.get_by_role("slider", name=label) for label in ("Step size", "Decay")]
    on = [slider.is_enabled() for slider in sliders]
    assert on == [gate in GATES[name] for gate in ("beta", "decay")]
    settings = page.locator("output").all_inner_texts()
    assert [setting != "not used" for setting in settings] == on


def test_the_keyboard_does_all(page: Page) -> None:
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")  # from DeltaNet to Gated DeltaNet
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert page.locator("output").all_inner_texts() == ["0.9", "1"]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".says").inner_text().startswith("Gated DeltaNet, writes: 4.")
    for _ in PAIRS:
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.locator(".says").inner_text().startswith("Gated DeltaNet, writes: 3.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator(".says").inner_text() == "Gated DeltaNet: the memory is empty."
    assert cells(page, "state") == [[f"value’s {n}", "0", "0"] for n in ("1st", "2nd")]
    assert cells(page, "history") == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible(page: Page, theme: str) -> None:
    page.set_content(html(theme))
    press(page, 0, 1, 1, 3)
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in found] == []


def test_it_fits_on_a_telephone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 700})
    set_slider(page, "Step size", 2.5)
    press(page, *[0, 1] * 10)
    assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


def test_without_the_scripts_the_picture_stays(page: Page) -> None:
    page.set_content(html(scripts=[]))
    assert page.locator("#fig-x img").is_visible()
    assert page.locator(".player").count() == 0
    assert not page.locator("div.workbench").is_visible()
