"""The page at /: every file that it needs is served, is open without a token, and runs under the policy."""

import asyncio
import re
from html.parser import HTMLParser

import httpx
import pytest
from starlette.applications import Starlette

from service.transports.http import static_pages
from service.transports.http.middleware import CONTENT_SECURITY_POLICY, Envelope

IMPORT = re.compile(r'^(?:import|export) .*from "\./(\S+)";$', re.MULTILINE)
ID = re.compile(r'\bfind\("([^"]+)"\)')


def get(path, wrap=lambda application: application):
    """Return the answer of the pages' routes, with a middleware around them."""

    async def ask():
        transport = httpx.ASGITransport(wrap(Starlette(routes=static_pages.ROUTES)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path)

    return asyncio.run(ask())


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.addresses, self.inline = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.addresses += [attributes[name] for name in ("src", "href") if name in attributes]
        self.inline += [name for name in attributes if name.startswith("on")]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in attributes) else []


@pytest.fixture(scope="module")
def page():
    return Page(get("/").text)


def test_every_module_that_the_page_imports_is_served(page):
    todo = {address.removeprefix("./page/") for address in page.addresses if address.startswith("./page/")}
    loaded = set()
    while todo:
        name = todo.pop()
        answer = get(f"/page/{name}")
        assert answer.status_code == 200, name
        loaded.add(name)
        assert answer.headers["content-type"].startswith(static_pages.MEDIA_TYPES[f".{name.split('.')[-1]}"])
        todo |= set(IMPORT.findall(answer.text)) - loaded
    served = {path.removeprefix("/page/") for path in static_pages.FILES}
    assert served - loaded == {"answers.js", "report.js"}  # types alone, and the script of reports


def test_the_page_has_every_element_that_its_scripts_look_for(page):
    assert len(page.ids) == len(set(page.ids))
    scripts = [get(path).text for path in static_pages.FILES if "report" not in path]
    wanted = {name for script in scripts for name in ID.findall(script)}
    assert len(wanted) > 20
    assert wanted <= set(page.ids)


def test_nothing_on_the_page_is_from_elsewhere_or_inline(page):
    assert all(address.startswith("./") for address in page.addresses)
    assert page.inline == []
    policy = dict([CONTENT_SECURITY_POLICY])[b"content-security-policy"].decode()
    assert "script-src 'self';" in policy


def test_no_two_files_have_one_name():
    folders = (static_pages.PAGE, static_pages.WEB)
    names = [file.name for folder in folders for file in folder.iterdir() if file.suffix in static_pages.MEDIA_TYPES]
    assert len(names) == len(set(names)) == len(static_pages.FILES)


def test_the_page_is_open_and_docs_is_not(tmp_path, monkeypatch):
    tokens = tmp_path / "tokens"
    tokens.write_text("0" * 64)
    monkeypatch.setenv("MISFIT_TOKENS_FILE", str(tokens))
    assert {get(path, Envelope).status_code for path in static_pages.OPEN_PATHS} == {200}
    assert get("/docs", Envelope).status_code == 401
    assert get("/page/", Envelope).status_code == 401
