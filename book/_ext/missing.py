"""The page for addresses that lead nowhere, 404.html, made by sphinx-notfound-page.

It is shown at any depth, so its own links have to begin at the root of the host. The path that
they begin with is that of the site's address.
"""

from urllib.parse import urlparse


def begin_at_the_root(app, config):
    config.notfound_urls_prefix = urlparse(config.html_baseurl).path


def setup(app):
    app.setup_extension("notfound.extension")
    app.connect("config-inited", begin_at_the_root)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
