"""What DESIGN asks of the imports and modules of app/, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "app"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(APP.rglob("*.py"))
}
MAX_LINES = 400

BASE = {"errors", "lanes", "market", "settings", "setting_sources", "setting_values"}
ROOMS = {"pipeline", "storage", "stream", "datasets", "formats", "alerts", "quality"}
RUNTIME = {path.stem for path in APP.glob("*.py")} - BASE - {"__init__", "__main__"}
"""One layer in several modules: what a worker owns, and what it knows of itself and the others."""
MAY_IMPORT = {
    **dict.fromkeys(RUNTIME, BASE | ROOMS | RUNTIME | {"backup", "jobs"}),
    "errors": set(),
    "lanes": {"errors"},
    "market": {"errors"},
    "setting_values": {"errors", "market"},
    "setting_sources": {"errors", "setting_values", "settings"},  # settings: as a type only
    "settings": {"errors", "setting_sources", "setting_values"},
    "formats": {"errors"},
    "pipeline": BASE,
    "alerts": {"errors", "market"},
    "quality": {"errors", "market"},
    "storage": BASE | {"formats", "datasets", "alerts", "quality"},
    "stream": BASE,
    "datasets": {"errors", "market"},
    "backup": BASE | {"pipeline", "storage", "archive"},
    "archive": BASE | {"storage"},
    "jobs": BASE | {"storage"} | RUNTIME,
    "doctor": BASE | {"pipeline", "storage", "backup", "jobs"} | RUNTIME,
    "web": BASE | ROOMS | RUNTIME | {"jobs"},
    "cli": BASE | ROOMS | RUNTIME | {"archive", "backup", "doctor", "jobs"},
    "viewer": set(),
    "__main__": {"cli"},
    "": BASE | ROOMS | RUNTIME | {"web"},  # app itself: create_app, which joins the rooms
}
PURE = {"market", "storage", "formats", "datasets", "quality"}
IMPURE = {"gevent", "logging", "threading", "prometheus_client"}


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Yield the absolute name of all that is imported, at the top, lazily or for types only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            parents = parts[: len(parts) - node.level + is_package]
            origin = ".".join([*(parents if node.level else []), *([node.module] if node.module else [])])
            # `from app import storage` names a module only by what it takes.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imports_of(module: str) -> set[str]:
    path = MODULES[module]
    return set(imports(path.read_text(), module, path.name == "__init__.py"))


def room(module: str) -> str:
    return [*module.split("."), ""][1] if module.startswith("app") else module


def packages_of(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports_of(module)}


def lane_side(module: str) -> bool:
    docstring = ast.get_docstring(ast.parse(MODULES[module].read_text())) or ""
    return "lane side" in " ".join(docstring.splitlines()[:3]).lower()


def test_every_kind_of_import_is_seen() -> None:
    source = """
import app.market.clock
from app import storage
from ..pipeline.journal import Journal
from . import sibling
if TYPE_CHECKING:
    from app.web.worker import TickhubWorker
def later():
    from .journal import x
    import flask
"""
    assert set(imports(source, "app.stream.hub")) == {
        "app.market.clock",
        "app.storage",
        "app.pipeline.journal.Journal",
        "app.stream.sibling",
        "app.web.worker.TickhubWorker",
        "app.stream.journal.x",
        "flask",
    }
    assert set(imports("from . import hub\nfrom ..web import x", "app.stream", is_package=True)) == {
        "app.stream.hub",
        "app.web.x",
    }


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    here = room(module)
    assert here in MAY_IMPORT, f"{here} has no place in the order of imports yet: give it one in MAY_IMPORT"
    ours = {name for name in imports_of(module) if name.split(".")[0] == "app"}
    wrong = {name for name in ours if room(name) not in MAY_IMPORT[here] | {here}}
    assert not wrong, f"{module} may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("module", MODULES)
def test_flask_and_gunicorn_stay_at_the_door(module: str) -> None:
    used = packages_of(module)
    assert "flask" not in used or room(module) in ("", "web")
    assert "gunicorn" not in used or room(module) == "web" or module == "app.cli.serve"


@pytest.mark.parametrize("module", [m for m in MODULES if room(m) in PURE or lane_side(m)])
def test_lane_code_is_pure(module: str) -> None:
    assert not packages_of(module) & IMPURE, "a lock patched by gevent hangs a native thread for ever"


@pytest.mark.parametrize("module", ["app", "app.settings", "app.setting_sources", "app.setting_values", "app.errors"])
def test_what_gunicorn_reads_before_patching_is_light(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    at_import = ast.unparse(
        ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    )
    used = {name.split(".")[0] for name in imports(at_import, module, module == "app")}
    assert not used & {"flask", "numpy", "psycopg2", "gevent", "sqlalchemy", "msgspec", "dotenv"}


@pytest.mark.parametrize("folder", [p.parent for p in APP.rglob("*.py") if p.name == "__init__.py"])
def test_every_room_says_its_law(folder: Path) -> None:
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))


@pytest.mark.parametrize("folder", sorted({path.parent for path in APP.rglob("*.py")}))
def test_every_folder_of_code_is_a_package(folder: Path) -> None:
    assert (folder / "__init__.py").exists()


@pytest.mark.parametrize("module", MODULES)
def test_no_module_outgrows_one_sitting(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= MAX_LINES, f"{module} has {lines} lines: it is two modules by now"
