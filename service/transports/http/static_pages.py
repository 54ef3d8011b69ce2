"""Two pages for people: `/` says what misfit is, and `/docs` shows the OpenAPI document in Swagger UI.

Neither has a script of its own, so that the content security policy can forbid scripts in pages. BentoML ships Swagger
UI, with a script that shows `./docs.json`, as static files; its own page at `/` would report visitors to a third party.
"""

from __future__ import annotations

from html import escape
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

_STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1rem; color: #282828; }
pre { background: #f3f3f3; padding: .75rem 1rem; overflow-x: auto; }
td { padding: .1rem 1.5rem .1rem 0; vertical-align: top; }"""

INDEX = f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>misfit</title>
<link rel="icon" type="image/png" href="./static_content/favicon-light-32x32.png">
<style>
{_STYLE}
</style>
</head>
<body>
<h1>misfit {escape(version("misfit"))}</h1>
<p>Send a batch of images. Learn which of them do not belong in that batch, why, and what each would look like if it
did.</p>
<pre>curl -F images=@a.png -F images=@b.png -F images=@c.png HOST/score
curl -F images=@batch.zip -H "Accept: image/png" -o sheet.png HOST/score</pre>
<table>
<tr><td><a href="./docs">/docs</a></td><td>every endpoint, to try out in this browser</td></tr>
<tr><td><a href="./docs.json">/docs.json</a></td><td>the same as an OpenAPI document, to generate clients from</td></tr>
<tr><td><a href="./readyz">/readyz</a></td><td>whether requests can be answered</td></tr>
<tr><td><a href="./metrics">/metrics</a></td><td>counts and times, for Prometheus</td></tr>
</table>
</body>
</html>
"""

DOCS = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>misfit: the HTTP API</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
<link rel="icon" type="image/png" href="./static_content/favicon-light-32x32.png">
<style>
body { margin: 0; }
.topbar { display: none; }
</style>
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js" charset="utf-8"></script>
<script src="./static_content/swagger-ui-standalone-preset.js" charset="utf-8"></script>
<script src="./static_content/swagger-initializer.js" charset="utf-8"></script>
</body>
</html>
"""


async def _show_index(request: Request) -> HTMLResponse:
    return HTMLResponse(INDEX)


async def _show_docs(request: Request) -> HTMLResponse:
    return HTMLResponse(DOCS)


ROUTES = [Route("/", _show_index), Route("/docs", _show_docs)]
