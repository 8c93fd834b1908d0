"""Repairs of what Jupyter Book 1.x puts into a page.

The scripts of sphinx-thebe are inserted even where no page runs code live, and every page then
reports that THEBE_JS_URL has already been declared. They go, and so do inline scripts that are
inserted twice. Theorems and exercises lose the ids that every one of them gets. Entries of the
bibliography get the role that their list has to contain. The button for Colab opens the notebook
that was written for it, in colab/, where the theme would open the chapter's own.
"""

import re

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


def setup(app):
    app.connect("html-page-context", repair, priority=900)
    app.connect("html-page-context", lead_to_colab, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
