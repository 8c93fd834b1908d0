// What is wider than the page scrolls in its own box, and a keyboard has to reach it to scroll it.

{
  const boxes =
    '.bd-article :is(mjx-container[display="true"], .pst-scrollable-table-container, figure)';
  const formulas = ".bd-article span.math"; // the theme cuts them off
  const scrolls = (box, wide) => {
    if (wide) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  };
  const reach = () => {
    for (const box of document.querySelectorAll(boxes)) {
      scrolls(box, box.scrollWidth > box.clientWidth);
    }
    for (const box of document.querySelectorAll(formulas)) {
      const width = box.querySelector("mjx-math")?.getBoundingClientRect().width;
      const wide = width > box.clientWidth + 1;
      box.style.overflowX = wide ? "auto" : "";
      scrolls(box, wide);
    }
  };
  addEventListener("load", async () => {
    await window.MathJax?.startup.promise;
    reach();
    addEventListener("resize", reach);
  });
}
