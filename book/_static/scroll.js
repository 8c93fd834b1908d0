// What is wider than the page scrolls in its own box, and a keyboard has to reach it to scroll it.

{
  const wide = '.bd-article :is(mjx-container[display="true"], .pst-scrollable-table-container)';
  const reach = () => {
    for (const box of document.querySelectorAll(wide)) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("load", async () => {
    await window.MathJax?.startup.promise;
    reach();
    addEventListener("resize", reach);
  });
}
