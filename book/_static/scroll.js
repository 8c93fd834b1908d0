// What is wider than the page scrolls in its own box, and a keyboard has to reach it to scroll it.
// Its right edge fades (.goes-on) as long as there is more to the right.

{
  const boxes =
    '.bd-article :is(mjx-container[display="true"], .pst-scrollable-table-container, ' +
    ".picture, div.highlight pre)";
  const formulas = ".bd-article span.math"; // the theme cuts them off
  const fade = (box) => {
    const right = box.scrollLeft + box.clientWidth;
    box.classList.toggle("goes-on", box.tabIndex === 0 && right < box.scrollWidth - 2);
  };
  const scrolls = (box, wide) => {
    if (wide) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
    fade(box);
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
  // A picture scrolls without its caption.
  const frame = () => {
    for (const picture of document.querySelectorAll(".bd-article figure > img:not([hidden])")) {
      const box = document.createElement("div");
      box.className = "picture";
      picture.replaceWith(box);
      box.append(picture);
    }
  };
  document.addEventListener("DOMContentLoaded", frame);
  addEventListener("load", async () => {
    await window.MathJax?.startup.promise;
    reach();
    addEventListener("resize", reach);
    const moved = ({ target }) => target.tabIndex === 0 && fade(target);
    document.addEventListener("scroll", moved, true); // of boxes, which does not bubble
  });
}
