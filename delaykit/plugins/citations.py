"""From a citation in a line of text to a BibTeX entry."""

from __future__ import annotations

import re

LINE = re.compile(r"(?P<authors>.+?),? (?P<year>(?:19|20)\d\d), (?P<rest>.+)")


def bibtex(key: str, paper: str) -> str:
    """Write ``Authors year, title, where, arXiv number`` as an entry; what is not in the line is not in the entry.

    Args:
        key: of the entry.
        paper: the line. Without a title, what follows the year is where it appeared.

    Example:
        >>> print(bibtex("delrec", "Queant and Masquelier 2025, DelRec: learning delays, arXiv 2509.24852"))
        @misc{delrec,
          author = {Queant and Masquelier},
          year = {2025},
          title = {{DelRec: learning delays}},
          eprint = {2509.24852},
          archivePrefix = {arXiv}
        }
    """
    fields: dict[str, str] = {}
    found = LINE.fullmatch(paper)
    rest = found["rest"] if found else paper
    if found:
        authors = re.split(r", | and ", found["authors"].replace(" et al.", " and others"))
        fields |= {"author": " and ".join(authors), "year": found["year"]}
    rest, where = _taken(rest, r"arXiv (\d{4}\.\d{4,5})"), re.search(r"arXiv (\d{4}\.\d{4,5})", rest)
    doi = re.search(r"doi (\S+)", rest)
    rest = _taken(rest, r"doi (\S+)")
    title, _, venue = rest.partition(", ")
    if title and not re.search(r"\d", title) and (venue or " " in title):
        fields["title"] = "{" + title + "}"
    elif rest:
        venue = rest
    if venue:
        fields["howpublished"] = venue
    if where:
        fields |= {"eprint": where[1], "archivePrefix": "arXiv"}
    if doi:
        fields["doi"] = doi[1]
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{body}\n}}"


def _taken(text: str, pattern: str) -> str:
    """Return a list without the entry of that pattern."""
    return ", ".join(part for part in text.split(", ") if not re.fullmatch(pattern, part))
