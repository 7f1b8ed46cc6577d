"""What the handbook and its sisters say is done on a real server, and prints what they say."""

from __future__ import annotations

import pytest

from tests.process.conftest import MakeServer
from tests.process.pages import DOCS, PAGES, WORKERS, Reader, alike


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_print_what_it_says(make_server: MakeServer, name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    reader = Reader(make_server(workers=WORKERS))
    try:
        found = reader.read(page)
    finally:
        reader.close()
    assert page.count("\n$ ") > 3, "a page without commands is none of these"
    assert alike(found) == alike(page), "python -m tests.process.pages writes it anew; read what has changed"
    assert "Traceback" not in found
