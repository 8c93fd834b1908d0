// What is wider than the page scrolls in its own box, and a keyboard has to reach it to scroll it.

{
  const boxes =
    '.bd-article :is(mjx-container[display="true"], .pst-scrollable-table-container, figure)';
  const formulas = ".bd-article span.math"; // the theme cuts them off
  const reach = () => {
    for (const box of document.querySelectorAll(boxes)) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
    for (const box of document.querySelectorAll(formulas)) {
      const formula = box.querySelector("mjx-math");
      const wider = formula && formula.getBoundingClientRect().width > box.clientWidth + 1;
      box.style.overflowX = wider && box.clientWidth ? "auto" : "";
      if (box.style.overflowX) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("load", async () => {
    await window.MathJax?.startup.promise;
    reach();
    addEventListener("resize", reach);
  });
}
