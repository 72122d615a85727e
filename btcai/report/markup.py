"""The pieces that the report's page is made of: sections, tables, cells, pictures."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from btcai.report.drawing import Picture


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands below it, as HTML; left out where nothing does."""

    title: str
    parts: tuple[str, ...]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def html(self) -> str:
        return f'<section id="{self.anchor}"><h2>{escape(self.title)}</h2>\n' + "\n".join(self.parts) + "\n</section>"


def section(title: str, *parts: str) -> Section:
    """Of the parts that are not empty."""
    return Section(title=title, parts=tuple(part for part in parts if part))


def contents(sections: Iterable[Section]) -> str:
    """Links to the sections that hold anything."""
    items = (f'<li><a href="#{one.anchor}">{escape(one.title)}</a></li>' for one in sections)
    return f'<nav aria-label="Contents"><ol>{"".join(items)}</ol></nav>'


def picture(found: Picture | None) -> str:
    """With its caption; nothing where there is none."""
    if found is None:
        return ""
    data = base64.b64encode(found.png).decode("ascii")
    caption = escape(found.caption)
    image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="scroll">{image}</div><figcaption>{caption}</figcaption></figure>'


def paragraph(text: str) -> str:
    """Plain text; nothing where it is empty."""
    return f"<p>{escape(text)}</p>" if text else ""


def aside(text: str) -> str:
    """Plain text, softer: a unit, a remark, what is not there and which command makes it."""
    return f'<p class="soft">{escape(text)}</p>'


def table(heads: Iterable[str], body: Iterable[str]) -> str:
    """Rows of HTML below headings of plain text."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def row(first: str, cells: Iterable[str], kind: str = "") -> str:
    """A table's row: its name as plain text, then cells of HTML."""
    opening = f'<tr class="{kind}">' if kind else "<tr>"
    return f"{opening}<td>{escape(first)}</td>{''.join(cells)}</tr>"


def cell(text: str, sign: float = 0.0) -> str:
    """Plain text, green where the sign is above 0 and red below."""
    tone = ' class="up"' if sign > 0 else ' class="down"' if sign < 0 else ""
    return f"<td{tone}>{escape(text)}</td>"
