"""From a citation in a line of text to a BibTeX entry."""

from __future__ import annotations

import re

LINE = re.compile(r"(?P<authors>.+?),? (?P<year>(?:19|20)\d\d), (?P<rest>.+)")
JOURNAL = re.compile(r"(?P<journal>\D+) (?P<volume>\d+)(?:\((?P<number>\d+)\))?(?:, (?P<pages>[\d-]+))?")
CONFERENCE = re.compile(r"[A-Z][A-Za-z]*[A-Z]")  # ICLR, CVPR, NeurIPS


def bibtex(key: str, paper: str, *, version: str = "") -> str:
    """Write ``Authors year, title, where, arXiv number`` as an entry; what is not in the line is not in the entry.

    Args:
        key: of the entry.
        paper: the line. Without a title, what follows the year is where it appeared: a journal with its volume makes an
            article, a conference's short name a paper of its proceedings.
        version: of a program.

    Example:
        >>> print(bibtex("dcls", "Ilyass Hammouamri et al. 2024, Learning delays, ICLR, arXiv 2306.17670"))
        @inproceedings{dcls,
          author = {Ilyass Hammouamri and others},
          year = {2024},
          title = {{Learning delays}},
          booktitle = {ICLR},
          eprint = {2306.17670},
          archivePrefix = {arXiv}
        }
    """
    fields: dict[str, str] = {}
    found = LINE.fullmatch(paper)
    rest = found["rest"] if found else paper
    if found:
        authors = re.split(r", | and ", found["authors"].replace(" et al.", " and others"))
        groups = ["{" + name + "}" if name.startswith("The ") else name for name in authors]  # no given name
        fields |= {"author": " and ".join(groups), "year": found["year"]}
    rest, where = _taken(rest, r"arXiv (\d{4}\.\d{4,5})"), re.search(r"arXiv (\d{4}\.\d{4,5})", rest)
    doi = re.search(r"doi (\S+)", rest)
    rest = _taken(rest, r"doi (\S+)")
    title, _, venue = rest.partition(", ")
    if title and not re.search(r"\d", title) and (venue or " " in title):
        fields["title"] = "{" + title + "}"
    elif rest:
        venue = rest
    kind, published = _appeared(venue)
    fields |= published
    if where:
        fields |= {"eprint": where[1], "archivePrefix": "arXiv"}
    if doi:
        fields["doi"] = doi[1]
    if version:
        fields["version"] = version
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{body}\n}}"


def _appeared(venue: str) -> tuple[str, dict[str, str]]:
    """Return the kind of an entry and the fields that say where it appeared."""
    if journal := JOURNAL.fullmatch(venue):
        return "article", {name: text.replace("-", "--") for name, text in journal.groupdict().items() if text}
    if CONFERENCE.fullmatch(venue):
        return "inproceedings", {"booktitle": venue}
    return "misc", {"howpublished": venue} if venue else {}


def _taken(text: str, pattern: str) -> str:
    """Return a list without the entry of that pattern."""
    return ", ".join(part for part in text.split(", ") if not re.fullmatch(pattern, part))
