"""The site builds strictly; every page is in its navigation; links lead somewhere; no other host is asked."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = {ROOT / f"{name}.md": f"{name.lower()}.html" for name in ("README", "CONTRIBUTING", "CHANGELOG")} | {
    page: f"{page.stem}.html" for page in sorted((ROOT / "docs").glob("*.md"))
}
# What makes a browser fetch something: tag -> attributes.
SRC = ("script", "img", "iframe", "source", "video", "audio", "embed", "input")
FETCHED = dict.fromkeys(SRC, ("src", "srcset")) | {"link": ("href",), "object": ("data",), "image": ("href",)}


class Parsed(HTMLParser):
    """A page's anchors, links, fetched addresses, and how often each tag is in its article."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.tags: Counter = Counter()
        self.navigation: set[str] = set()
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            if "nav" in self._inside:
                self.navigation.add(given["href"])
        if tag == "link" and given.get("rel") in ("canonical", "next", "prev"):
            return
        self.fetched += [given[name] for name in FETCHED.get(tag, ()) if given.get(name)]
        if "article" in self._inside:
            self.tags[tag] += 1
        if tag in ("nav", "article"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if tag in self._inside:
            self._inside.remove(tag)


def build(config: Path, site: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site: path from its root -> what the page holds."""
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {str(page.relative_to(folder)): Parsed(page.read_text()) for page in folder.rglob("*.html")}
    return folder, pages


def test_every_page_is_in_the_navigation(site):
    _, pages = site
    assert set(PAGES.values()) <= set(pages)
    shown = {link for link in pages["concepts.html"].navigation if not link.startswith("#")}
    notebooks = {f"notebooks/{path.stem}.html" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert shown >= {*PAGES.values(), *notebooks}


def test_every_link_and_anchor_leads_somewhere(site):
    folder, pages = site
    checked = 0
    for name, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or name == "404.html":  # what is served for any missing address
                continue
            target = (folder / name).parent / unquote(parts.path) if parts.path else folder / name
            target = target.resolve()
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{name}: {link}"
            anchor = unquote(parts.fragment)
            if anchor and target.suffix == ".html":
                assert anchor in pages[str(target.relative_to(folder))].ids, f"{name}: {link}"
            checked += 1
    assert checked > 500


def test_no_page_asks_another_host(site):
    folder, pages = site
    for name, page in pages.items():
        for address in page.fetched:
            assert not urlsplit(address).netloc, f"{name}: {address}"
    for style in folder.rglob("*.css"):
        for address in re.findall(r"(?:url\(|@import\s*)[\"']?([^\"')]+)", style.read_text()):
            assert not urlsplit(address).netloc, f"{style.name}: {address}"
    # The theme's script would fetch mermaid for a diagram, so there is none.
    assert not [name for name in pages if re.search(r'class="[^"]*mermaid', (folder / name).read_text())]


def test_the_site_shows_what_github_shows(site):
    _, pages = site
    reader = MarkdownIt("commonmark").enable("table")
    for source, name in PAGES.items():
        text = re.sub(r"^```math\n.*?^```$", "", source.read_text(), flags=re.MULTILINE | re.DOTALL)
        there = Counter(token.tag for token in reader.parse(text) if token.nesting >= 0)
        there["pre"] = sum(token.type in ("fence", "code_block") for token in reader.parse(text))
        for tag in ("li", "ol", "ul", "pre", "table", "tr", "td", "h1", "h2", "h3"):
            assert pages[name].tags[tag] == there[tag], f"{source.name}: {tag}"


def test_equations_are_mathml(site):
    folder, pages = site
    source = (ROOT / "docs" / "methods.md").read_text()
    assert pages["methods.html"].tags["math"] >= source.count("```math") > 5
    equations = "".join(re.findall(r'<div class="equation">.*?</div>', (folder / "methods.html").read_text()))
    assert "\\" not in equations  # no command that was not understood


def test_the_search_finds_a_word(site):
    folder, _ = site
    index = json.loads((folder / "search" / "search_index.json").read_text())
    assert any("teacher_drift" in entry["text"] for entry in index["docs"])


def test_dead_links_stop_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    for path in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/concepts.md"):
        (tmp_path / path).write_text("# x\n")
    (tmp_path / "docs" / "site_hooks.py").write_text((ROOT / "docs" / "site_hooks.py").read_text())
    dead = ("nowhere.md", "concepts.md#nowhere", "../sdd/nowhere.py")
    (tmp_path / "docs" / "index.md").write_text("# x\n" + "".join(f"\n[x]({link})\n" for link in dead))
    config = re.sub(r"^nav:.*", "", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "mkdocs.yml").write_text(config)
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode != 0
    assert all(link.removeprefix("../") in built.stdout + built.stderr for link in dead)
