"""What the site needs beyond mkdocs: equations as MathML, notebooks and files outside docs/ as pages."""

import base64
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# Files of the root that are pages of the site; other files that a page links to are shown under source/.
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".json": "json"}
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")
EQUATION = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds pages for notebooks, for the pages of the root and for every other file that a page links to."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        for uri, content in notebook_files(path):
            files.append(File.generated(config, uri, content=content))
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    pages = files.documentation_pages()
    for path in sorted({path for page in pages for path in links(page.content_string, page.src_uri)}):
        if not (path.startswith("docs/") or path in PAGES) and (ROOT / path).is_file():
            text = (ROOT / path).read_text(encoding="utf-8")
            content = f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"
            files.append(File.generated(config, site_uri(path), content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to pages of the site, and equations need no script."""
    here = page.file.src_uri

    def moved(match: re.Match) -> str:
        target, anchor = match[1], match[2] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        uri = site_uri(repository_path(target, here))
        return f"]({posixpath.relpath(uri, posixpath.dirname(here) or '.')}{anchor})"

    return EQUATION.sub(equation, outside_code(LINK, moved, markdown))


def equation(match: re.Match) -> str:
    """LaTeX as MathML, a row a line; a line that begins with a space goes on with the one before."""
    rows = re.sub(r"\n +", " ", match[1].strip()).splitlines()
    return f'<div class="equation">{"".join(convert(row, display="block") for row in rows)}</div>\n'


def outside_code(pattern: re.Pattern, replace: Any, markdown: str) -> str:
    """Replaces matches that lie outside fenced code."""
    parts, end = [], 0
    for fence in FENCED.finditer(markdown):
        parts += [pattern.sub(replace, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, pattern.sub(replace, markdown[end:])])


def repository_path(target: str, here: str) -> str:
    """A link of a page, as a path from the repository's root."""
    of_root = {uri: path for path, uri in PAGES.items()}
    folder = posixpath.dirname(of_root.get(here, f"docs/{here}"))
    return posixpath.normpath(posixpath.join(folder, target))


def site_uri(path: str) -> str:
    """Where the site shows a file of the repository."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
    return f"source/{path}.md"


def links(markdown: str, here: str) -> Iterator[str]:
    """Files of the repository that a page links to."""
    for target, _ in LINK.findall(FENCED.sub("", markdown)):
        if "://" not in target and not target.startswith("mailto:"):
            yield repository_path(target, here)


def notebook_files(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """A notebook as a markdown page, and its images: where each lies in the site, and what it holds."""
    parts: list[str] = []
    num_images = 0
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"````python\n{cell.source}\n````")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                num_images += 1
                name = f"{path.stem}_{num_images}.png"
                parts.append(f"![{data.get('text/plain', 'figure')}]({name})")
                yield f"notebooks/{name}", base64.b64decode(data["image/png"])
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"```` {{.text .output}}\n{text.rstrip()}\n````")
    parts.append(f'<a href="{path.name}" download>This page as a notebook</a>')
    yield f"notebooks/{path.stem}.md", "\n\n".join(parts) + "\n"
