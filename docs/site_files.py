"""What `mkdocs build` does beyond plain pages: benchmarks/README.md is one of them, under the name benchmarks.md."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

SOURCE = "benchmarks/README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page; its links into docs/ begin at the repository's root."""
    text = (Path(config.config_file_path).parent / SOURCE).read_text(encoding="utf-8")
    files.append(File.generated(config, "benchmarks.md", content=text.replace("](../docs/", "](")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the other pages' links to it."""
    return markdown.replace(f"](../{SOURCE}", "](benchmarks.md")
