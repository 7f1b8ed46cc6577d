"""The viewer's files belong together, and need nothing from elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from flask import Flask

from app.web import viewer
from app.web.viewer import FOLDER, POLICY

MODULES = sorted(FOLDER.glob("*.js"))
INDEX = (FOLDER / "index.html").read_text()
ELSEWHERE = ["https://www.tradingview.com/"]
"""What the page may name of the net: the maker of the chart, for who clicks on it."""


def test_every_module_is_named_once_in_the_page() -> None:
    named = re.findall(r'(?:src|href)="/viewer/([^"]+)"', INDEX)
    assert sorted({name for name in named if name.endswith(".js") and "/" not in name}) == [m.name for m in MODULES]
    assert all((FOLDER / name).is_file() for name in named)
    preloaded = re.findall(r'modulepreload" href="/viewer/([^"]+)"', INDEX)
    assert sorted({*preloaded, "main.js", "first.js"}) == [module.name for module in MODULES]
    assert len(preloaded) == len(set(preloaded))


def test_every_import_leads_to_what_is_exported() -> None:
    for module in MODULES:
        for names, origin in re.findall(r'import \{([^}]+)\} from "\./([^"]+)"', module.read_text()):
            text = (FOLDER / origin).read_text()
            for name in filter(None, (name.strip() for name in names.split(","))):
                assert re.search(rf"export (?:async )?(?:function|class|const) {name}\b", text), (module.name, name)


def test_nothing_is_loaded_from_elsewhere_or_written_as_html() -> None:
    for file in [*MODULES, FOLDER / "style.css", FOLDER / "index.html"]:
        text = re.sub(r"^\s*(?:/\*\*|\*|//).*$", "", file.read_text(), flags=re.MULTILINE)
        assert re.findall(r"https?://[^\s\"')]+", text) in ([], ELSEWHERE), file.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), file.name
    assert not re.search(r"<script>|<style| style=| on\w+=", INDEX), "the policy forbids it"
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


def test_every_id_that_the_modules_ask_for_is_in_the_page() -> None:
    ids = set(re.findall(r' id="([\w-]+)"', INDEX))
    for module in MODULES:
        asked = set(re.findall(r'byId\("([\w-]+)"\)', module.read_text()))
        assert asked <= ids, module.name


def test_it_stays_small() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert all(len(Path(module).read_text().splitlines()) <= 400 for module in MODULES)


def test_a_file_of_another_release_is_another_one_whatever_its_time_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "FOLDER", tmp_path)
    app = Flask(__name__)
    app.register_blueprint(viewer.blueprint)
    told = {}
    for text in ("one", "two"):
        (tmp_path / "a.js").write_text(text)
        os.utime(tmp_path / "a.js", (1e9, 1e9))
        answer = app.test_client().get("/viewer/a.js", headers={"If-None-Match": told.get("ETag", '"none"')})
        assert (answer.status_code, answer.text) == (200, text)
        told = dict(answer.headers)
