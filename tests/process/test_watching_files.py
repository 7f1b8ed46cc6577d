"""The files of deploy/prometheus and deploy/grafana, used for real: Prometheus scrapes a server, queries are asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from app.backup.following import FILE
from tests.backup_notes import a_note
from tests.process.harness import ROOT, Server, folder, free_port
from tests.process.wire import ask, running
from tests.waiting import WAIT_S, skip_here, wait_until

PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
METRIC = re.compile(r"\btickhub_\w+")

# What a server has only once somebody uses it.
UNUSED = {"tickhub_alert_posts", "tickhub_query_cache", "tickhub_records", "tickhub_alerts"}


def panels(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text())["panels"])


def targets(kind: str, key: str) -> list[tuple[str, str]]:
    """Return name and text of all queries of a kind of data source."""
    found = []
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    found.append((f"{path.stem}: {panel['title']} {target['refId']}", target[key]))
        for variable in json.loads(path.read_text())["templating"]["list"]:
            if variable.get("datasource", {}).get("type") == kind and "(" not in variable["query"]:
                found.append((f"{path.stem}: ${variable['name']}", variable["query"]))
    return found


PROMQL = targets("prometheus", "expr")
SQL = targets("grafana-postgresql-datasource", "rawSql")
BARS = next(
    variable["query"].split(",")
    for variable in json.loads((GRAFANA / "dashboards" / "tickhub-market.json").read_text())["templating"]["list"]
    if variable["name"] == "bars"
)


@pytest.fixture
def prometheus_here() -> None:
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        skip_here("needs Debian's package prometheus")


def rule_expressions() -> list[tuple[str, str]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [(rule.get("alert") or rule["record"], rule["expr"]) for group in groups for rule in group["rules"]]


@contextmanager
def prometheus(server: Server) -> Iterator[str]:
    """A real Prometheus with the configuration of deploy/, which scrapes the server each second; its URL."""
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{server.port}"]}]
    with folder() as home:
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = [
            "prometheus", f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until(lambda: up(url) == ["1"], WAIT_S, "Prometheus to have scraped the server")
            yield url
        finally:
            process.terminate()
            process.wait(WAIT_S)


def asked(url: str, expression: str) -> list[Any]:
    """Return the series of an expression; raises for one that Prometheus does not take."""
    query = urllib.parse.urlencode({"query": expression})
    with closing(urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=20)) as answer:
        found = json.loads(answer.read())
    assert found["status"] == "success", found
    return list(found["data"]["result"])


def up(url: str) -> list[str]:
    try:
        return [series["value"][1] for series in asked(url, 'up{job="tickhub"}')]
    except OSError:
        return []


def expanded(expression: str) -> str:
    return expression.replace("$instance", ".*").replace("$__rate_interval", "10s")


@pytest.fixture(scope="module")
def server(data_template: Path) -> Iterator[Server]:
    with running(data_template, workers=2) as server:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = {"symbol": "AAPL", "timestamp": now, "bid": 190.1, "ask": 190.2, "spread": 10, "volume": 5, "flags": 6}
        trade = row | {"last": 190.15, "flags": 24 | 32, "seq": 1}
        assert server.post([row, trade])[0] == 200
        server.wait_drained()
        server.database.rows(
            "INSERT INTO jobs (name, state, due_at, started_at, ended_at, succeeded_at, runs)"
            " VALUES ('backup', 'ok', now(), now(), now(), now(), 1)"
        )
        server.database.rows(
            "INSERT INTO tick_ranges (range, state, manifest, manifest_sha256, rows, derived_rows, bytes)"
            " VALUES ('[2001-01-01, 2001-01-08)', 'archived', 'm', 's', 1000, 0, 9000)"
        )
        server.database.rows("SELECT pg_create_physical_replication_slot('a_slot', true)")
        base = server.home / "backups" / "base"
        began_at = datetime(2026, 1, 13, 2, tzinfo=UTC)
        note = a_note(began_at, ended_at=began_at + timedelta(minutes=1), bytes=12345)
        (base / note.label).mkdir(parents=True)
        (base / f"{note.label}.json").write_bytes(msgspec.json.encode(note))
        followed = {"wal_until": now, "journals_until": now, "written_at": now}
        (base.parent / FILE).parent.mkdir()
        (base.parent / FILE).write_text(json.dumps(followed))
        for _ in range(10):  # by each worker, most likely
            scraped(server)
        yield server


def knows(text: str) -> bool:
    return "tickhub_archive_ticks 1000" in text and "tickhub_backup_wal_behind_bytes" in text


def scraped(server: Server) -> str:
    """Return what a worker tells that has looked at the database and at the backups."""

    def told() -> str | None:
        text = ask(server, "GET", "/metrics").data.decode()
        return text if knows(text) else None

    return str(wait_until(told, WAIT_S, "figures of the database and of backups"))


@pytest.mark.long
@pytest.mark.usefixtures("prometheus_here")
def test_the_rules_do_what_their_tests_say() -> None:
    commands: tuple[list[str | Path], ...] = (
        ["promtool", "check", "config", PROMETHEUS / "prometheus.yml"],
        ["promtool", "test", "rules", PROMETHEUS / "rules_test.yml", PROMETHEUS / "rules_days_test.yml"],
    )
    for command in commands:
        done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_how_bad_it_is_what_happened_and_what_to_do_and_is_tested() -> None:
    tested = "".join(path.read_text() for path in PROMETHEUS.glob("rules_*test.yml"))
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                assert rule["labels"]["severity"] == group["name"].removeprefix("tickhub-")
                assert rule["annotations"].keys() == {"summary", "action"}
                assert rule["alert"] in tested


def test_rules_and_dashboards_ask_for_metrics_that_a_server_has(server: Server) -> None:
    text = scraped(server)
    there = set(re.findall(r"^# TYPE (tickhub_\w+)", text, re.MULTILINE)) | set(METRIC.findall(text))
    for name, expression in [*PROMQL, *rule_expressions()]:
        missing = {
            one for one in METRIC.findall(expression) if one not in there and one.removesuffix("_total") not in UNUSED
        }
        assert not missing, f"{name} asks for {missing}"


@pytest.mark.long
@pytest.mark.usefixtures("prometheus_here")
def test_prometheus_scrapes_a_server_and_answers_every_query_of_dashboards_and_rules(server: Server) -> None:
    with prometheus(server) as url:
        # A rate needs two samples.
        wait_until(lambda: asked(url, "tickhub:ticks_received:rate1m"), WAIT_S, "rules to be evaluated")
        alerts = {name for name, _ in rule_expressions()}
        for name, expression in [*PROMQL, *rule_expressions()]:
            query = expanded(expression)
            found = asked(url, query)
            only_trouble = 'outcome!="ok"' in expression or 'status=~"' in expression
            # A condition that does not hold is no series; neither are rates of what has happened once.
            if not found and not only_trouble and name not in alerts and not any(word in expression for word in UNUSED):
                # After a scrape that took longer than its second there is nothing until the next one.
                wait_until(lambda query=query: asked(url, query), what=f"a series for {name}")
        assert asked(url, 'ALERTS{alertname="DatabaseAway"}') == []
        server.database.pause()
        try:
            wait_until(lambda: asked(url, 'ALERTS{alertname="DatabaseAway"}'), 90, "the alert to be pending")
        finally:
            server.database.resume()


@pytest.mark.parametrize(("name", "query"), SQL, ids=[name for name, _ in SQL])
def test_sql_of_dashboards_runs_as_the_role_that_reads(server: Server, name: str, query: str) -> None:
    for bars in BARS if "$bars" in query or "${bars" in query else [""]:
        text = query.replace("${symbol:sqlstring}", "'AAPL'").replace("${bars:raw}", bars)
        text = re.sub(
            r"\$__timeFilter\((.+?)\)", r"\1 BETWEEN now() - interval '2 days' AND now() + interval '1 day'", text
        )
        assert "$" not in text
        with closing(server.database.connect()) as conn, conn, conn.cursor() as cur:
            cur.execute("SET ROLE tickhub_read")
            cur.execute(text)
            names = [column.name for column in cur.description or ()]
            rows = cur.fetchall()
        assert rows or "Alerts" in name, name
        if "market: $symbol A" in name:
            assert names == ["time", "open", "high", "low", "close", "volume"]


def test_dashboards_name_only_the_data_sources_that_are_provisioned() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "tickhub.yml").read_text())["datasources"]
    known = {(source["type"], source["uid"]) for source in sources}
    ids = set()
    for path in DASHBOARDS:
        found = json.loads(path.read_text())
        ids.add(found["uid"])
        for panel in found["panels"]:
            used = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert {(one["type"], one["uid"]) for one in used} <= known
            place = panel["gridPos"]
            assert 0 <= place["x"] <= place["x"] + place["w"] <= 24
    assert len(ids) == len(DASHBOARDS) == 3
    assert yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tickhub.yml").read_text())["providers"]


def test_every_metric_is_documented_and_every_documented_one_is_there(server: Server) -> None:
    there = set(re.findall(r"^# TYPE (tickhub_\w+)", scraped(server), re.MULTILINE))
    documented = set(METRIC.findall((ROOT / "docs" / "watching.md").read_text()))
    assert there - documented == set()
    gone = {name for name in documented - there if name.removesuffix("_total") not in UNUSED}
    assert gone - {"tickhub_read", "tickhub_query_lanes_stuck_total", "tickhub_read_wait_seconds"} == set()


def test_every_alert_is_documented() -> None:
    text = (ROOT / "docs" / "watching.md").read_text()
    rules = [name for name, _ in rule_expressions()]
    assert [name for name in rules if name not in text and ":" not in name] == []
