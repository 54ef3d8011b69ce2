"""Pages for people: `/` scores the images that are dropped on it, and `/docs` shows the OpenAPI document in Swagger UI.

Their scripts and styles are files of their own, so that the content security policy can forbid scripts in pages. The
page at `/` is made of `page/` and of what it shares with reports, `service/report/web`. BentoML ships Swagger UI, with
a script that shows `./docs.json`, as static files; its own page at `/` would report visitors to a third party.
"""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from service.report.document import WEB

PAGE = Path(__file__).parent / "page"
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# A browser asks whether a file has changed before it uses the one that it has kept.
HEADERS = {"cache-control": "no-cache"}

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
<main style="max-width: 1460px; margin: 0 auto; padding: 1rem 20px 0; font-family: sans-serif">
<p>Send a batch of images. Learn which of them do not belong in that batch, why, and what each would look like if it
did. <a href="./">The page</a> does so without a program; from a program:</p>
<pre>curl -F images=@a.png -F images=@b.png -F images=@c.png HOST/score
curl -F images=@batch.zip -H "Accept: image/png" -o sheet.png HOST/score</pre>
</main>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js" charset="utf-8"></script>
<script src="./static_content/swagger-ui-standalone-preset.js" charset="utf-8"></script>
<script src="./static_content/swagger-initializer.js" charset="utf-8"></script>
</body>
</html>
"""


def _list_files() -> dict[str, Path]:
    """Return the page's files by the path that they are served at."""
    files = [file for folder in (WEB, PAGE) for file in sorted(folder.iterdir()) if file.suffix in MEDIA_TYPES]
    return {f"/page/{file.name}": file for file in files}


async def _show_index(request: Request) -> Response:
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("{version}", escape(version("misfit"))), headers=HEADERS)


async def _show_docs(request: Request) -> Response:
    return HTMLResponse(DOCS)


async def _send_file(request: Request) -> Response:
    file = FILES[request.url.path]
    return FileResponse(file, media_type=MEDIA_TYPES[file.suffix], headers=HEADERS)


FILES = _list_files()
# What a browser must have before it can ask a person for a token. Nothing of the model or of any image is in it.
OPEN_PATHS = ("/", *FILES)
ROUTES = [Route("/", _show_index), Route("/docs", _show_docs), *(Route(path, _send_file) for path in FILES)]
