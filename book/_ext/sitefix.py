"""Repairs of what Jupyter Book 1.x puts into a page.

The scripts of sphinx-thebe are inserted even where no page runs code live, and every page then
reports that THEBE_JS_URL has already been declared. They go, and so do inline scripts that are
inserted twice. Theorems and exercises lose the ids that every one of them gets. Entries of the
bibliography get the role that their list has to contain. The button for Colab opens the notebook
that was written for it, in colab/, where the theme would open the chapter's own. What opens the
list of pages under a page, in the list of chapters, gets a name. The front page, whose heading is
the title of the site, gets a title of its own.
"""

import re

from bs4 import BeautifulSoup

THEBE = re.compile(
    r'<script type="text/x-thebe-config">.*?</script>\s*<script>kernelName.*?</script>', re.DOTALL
)

REPEATED_ID = re.compile(r' id="(?:proof|(?:proof|exercise|solution)-content)"')


def repair(app, pagename, templatename, context, doctree):
    seen, kept = set(), []
    for script in context.get("script_files", []):
        body = (getattr(script, "attributes", None) or {}).get("body") or ""
        name = str(getattr(script, "filename", "") or "")
        if "thebe" in (body + name).lower() or (body and body in seen):
            continue
        seen.add(body)
        kept.append(script)
    context["script_files"] = kept
    if context.get("body"):
        body = REPEATED_ID.sub("", THEBE.sub("", context["body"]))
        context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def lead_to_colab(app, pagename, templatename, context, doctree):
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button["text"] == "Colab":
                button["url"] = button["url"].replace("/book/", "/colab/")


def name_what_opens(app, pagename, templatename, context, doctree):
    listed = context.get("generate_toctree_html")
    if listed is None:
        return

    def named(*args, **options):
        soup = BeautifulSoup(str(listed(*args, **options)), "html.parser")
        for summary in soup.select("li > details > summary"):
            page = summary.find_parent("li").find("a").get_text(strip=True)
            summary["aria-label"] = f"Pages under {page}"
        return str(soup)

    context["generate_toctree_html"] = named


def title_the_front(app, pagename, templatename, context, doctree):
    if pagename == app.config.root_doc:
        context["title"] = "An executable textbook"


def lend_writers(app):
    """Sphinx looks elsewhere only for a builder that no extension knows, and exercises know it."""
    writers = app.registry.translation_handlers
    writers["singlehtml"] = {**writers["html"], **writers["singlehtml"]}


def setup(app):
    app.connect("builder-inited", lend_writers)
    app.connect("html-page-context", repair, priority=900)
    app.connect("html-page-context", lead_to_colab, priority=900)
    app.connect("html-page-context", name_what_opens, priority=900)
    app.connect("html-page-context", title_the_front, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
