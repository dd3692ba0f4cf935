"""The README's tables of settings, which are derived from the settings themselves.

Run as a program, it writes them into the README.
"""

import re
from pathlib import Path

from restpipe.config import ClientSettings, ServerSettings, markdown_tables

README = Path(__file__).parents[1] / "README.md"
_PLACE = re.compile(r"(<!-- settings: begin -->\n).*(<!-- settings: end -->)", re.DOTALL)


def with_current_tables(text: str) -> str:
    """Return the README as it should be."""
    tables = markdown_tables(ServerSettings, ClientSettings)
    return _PLACE.sub(lambda place: f"{place[1]}\n{tables.strip()}\n\n{place[2]}", text)


if __name__ == "__main__":
    README.write_text(with_current_tables(README.read_text()))
