// The summary of a page that was found is of its text, and not of the buttons and lists beside it;
// formulas, which would be TeX there, are left out.

document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return; // Sphinx's, on the page of results
  const { htmlToText } = Search;
  Search.htmlToText = (html, anchor) => {
    const page = new DOMParser().parseFromString(html, "text/html");
    const beside = ".bd-header-article, #jb-print-docs-body, .bd-sidebar-secondary";
    for (const part of page.querySelectorAll(beside)) part.remove();
    for (const formula of page.querySelectorAll(".math")) formula.textContent = "…";
    return htmlToText(page.documentElement.outerHTML, anchor);
  };
});
