"""Settings: one table, four sources, one clear line when something is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from datetime import date
from pathlib import Path

import pytest

from app.errors import SettingsError
from app.settings import BY_NAME, ROOT, TABLE, Settings, load

KEY = "0123456789abcdef"


def read(flags: dict[str, str] | None = None, /, **environ: str) -> Settings:
    return load({f"TICKHUB_{name.upper()}": text for name, text in environ.items()}, flags, None)


def refusal(flags: dict[str, str] | None = None, /, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(flags, **environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_and_the_attributes_are_the_same() -> None:
    assert [row.name for row in TABLE] == [f.name for f in fields(Settings)]
    for row in TABLE:
        assert type(getattr(load({}, None, None), row.name)) is type(row.default), row.name
        assert row.help


def test_every_setting_is_documented() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", readme, re.DOTALL)
    assert found, "README.md needs the markers <!-- settings --> and <!-- /settings -->"
    printed = subprocess.run(
        [sys.executable, "-m", "app.settings"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert found[1].strip() == printed.strip(), "put what `python -m app.settings` prints between the markers"


def test_the_example_file_names_settings_only() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = {m[1] for line in lines if (m := re.match(r"#? ?(TICKHUB_\w+)=", line))}
    assert names
    assert names <= {row.env_names[0] for row in TABLE}


def test_no_two_settings_share_a_flag() -> None:
    flags = [flag for row in TABLE for flag in row.flag_names]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--db-file", "database_url"),
        ("--heartbeat-interval", "heartbeat_interval_s"),
        ("--stale-data-timeout", "stale_data_timeout_s"),
        ("--enable-access-log", "access_log"),
        ("--access-log", "access_log"),
        ("--pg-memory", "pg_memory_mb"),
        ("--pg-cpus", "pg_cpus"),
    ],
)
def test_promised_flags_exist(flag: str, name: str) -> None:
    assert flag in BY_NAME[name].flag_names


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("TICKHUB_PORT=1\nTICKHUB_WORKERS=3\nTICKHUB_FLUSH_ROWS=7\nOTHER=x\n")
    environ = {"TICKHUB_PORT": "2", "TICKHUB_WORKERS": "4"}
    got = load(environ, {"port": "3"}, file)
    assert (got.port, got.workers, got.flush_rows, got.host) == (3, 4, 7, "127.0.0.1")


def test_an_alias_is_read_and_the_own_name_wins() -> None:
    assert load({"REDIS_URL": "redis://a"}, None, None).redis_url == "redis://a"
    both = {"REDIS_URL": "redis://a", "TICKHUB_REDIS_URL": "redis://b"}
    assert load(both, None, None).redis_url == "redis://b"


def test_an_empty_variable_is_not_set_unless_empty_is_a_value(tmp_path: Path) -> None:
    assert read(port="", host="", log_level="", data_dir="").port == 5000
    file = tmp_path / ".env"
    file.write_text("TICKHUB_REDIS_URL=redis://a\n")
    assert load({"TICKHUB_REDIS_URL": ""}, None, file).redis_url == ""


def test_an_unknown_variable_is_named_with_a_suggestion(tmp_path: Path) -> None:
    assert (
        refusal(wokers="2") == "TICKHUB_WOKERS: unknown setting (environment); did you mean TICKHUB_WORKERS?"
    )
    file = tmp_path / ".env"
    file.write_text("TICKHUB_PROT=1\n")
    with pytest.raises(SettingsError, match=r"TICKHUB_PROT: unknown setting \(\.env\)"):
        load({}, None, file)
    assert "did you mean port" in refusal({"prot": "1"})


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("port", "abc", "whole number from 0 to 65535"),
        ("port", "65536", "from 0 to 65535"),
        ("port", "1.5", "whole number"),
        ("workers", "-1", "from 0"),
        ("flush_rows", "0", "from 1"),
        ("flush_interval_s", "0", "from 0.001"),
        ("flush_interval_s", "nan", "number"),
        ("heartbeat_interval_s", "inf", "number"),
        ("buffer_max_bytes", "64XB", "512MB"),
        ("buffer_max_bytes", "-1", "512MB"),
        ("journal_max_bytes", "1", "from 1048576"),
        ("pg_memory_mb", "lots", "512MB"),
        ("dev", "maybe", "true or false"),
        ("log_level", "loud", "debug, info"),
        ("unknown_symbols", "rejekt", "did you mean reject"),
        ("oldest_time", "1990-13-01", "1990-01-01"),
        ("host", "a b", "host name"),
        ("redis_url", "http://x", "redis://"),
        ("tick_timezone", "Mars/Olympus", ""),
        ("tick_timezone", "UTC+x", ""),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(name: str, text: str, allowed: str) -> None:
    why = refusal(**{name: text})
    assert f"TICKHUB_{name.upper()}" in why
    assert allowed in why
    assert BY_NAME[name].secret or text in why


def test_a_flag_is_named_as_it_was_written() -> None:
    assert refusal({"port": "x"}).startswith("--port=x: ")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("buffer_max_bytes", "2097152", 2 << 20),
        ("buffer_max_bytes", "2MB", 2 << 20),
        ("buffer_max_bytes", "2048 kib", 2 << 20),
        ("journal_max_bytes", "1.5GiB", 3 << 29),
        ("pg_memory_mb", "512", 512),
        ("pg_memory_mb", "512MB", 512),
        ("pg_memory_mb", "2GB", 2048),
        ("access_log", "YES", True),
        ("access_log", "0", False),
        ("log_level", "INFO", "info"),
        ("oldest_time", "2000-02-29", date(2000, 2, 29)),
        ("tick_timezone", "America/New_York+7h", "America/New_York+7h"),
        ("database_url", "postgres://u@h/d", "postgresql://u@h/d"),
        ("api_key_read", f"{KEY}, {KEY}x", (KEY, f"{KEY}x")),
        ("host", "[::1]", "::1"),
    ],
)
def test_texts_become_values(name: str, text: str, value: object) -> None:
    assert getattr(read(**{name: text}), name) == value


def test_questdb_is_refused_clearly() -> None:
    why = refusal(database_url="questdb://u:hunter2hunter2@h")
    assert "questdb:// is not supported" in why
    assert "hunter2" not in why


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    url = "postgresql://u:hunter2@h/d"
    got = read(database_url=url, direct_database_url=url, redis_url="redis://:hunter2@h", api_key_admin=KEY)
    assert "hunter2" not in f"{got!r} {got}"
    assert KEY not in f"{got!r} {got}"
    for wrong in (
        refusal(api_key_read="hunter2"),
        refusal(redis_url="http://:hunter2@h"),
        refusal({"database_url": "mysql://u:hunter2@h"}),
    ):
        assert "hunter2" not in wrong


def test_keys_have_no_flag_because_ps_shows_flags() -> None:
    keys = [row for row in TABLE if row.name.startswith("api_key")]
    assert len(keys) == 3
    assert not any(row.flag_names for row in keys)


def test_a_vendors_key_has_no_flag_and_is_never_shown() -> None:
    got = read(fastconnect_consumer_id="hunter2-id", fastconnect_consumer_secret="hunter2-secret")
    assert got.fastconnect_consumer_secret == "hunter2-secret"
    assert "hunter2" not in f"{got!r} {got}"
    rows = [row for row in TABLE if row.name.startswith("fastconnect_consumer")]
    assert len(rows) == 2
    assert not any(row.flag_names for row in rows)


@pytest.mark.parametrize("url", ["https://fc-data.example", "https://h:8443/fc", "http://127.0.0.1:8080", "http://[::1]"])
def test_a_vendors_address_is_taken_as_it_is_without_its_last_slash(url: str) -> None:
    assert read(fastconnect_url=url).fastconnect_url == url
    assert read(fastconnect_url=f"{url}/").fastconnect_url == url


@pytest.mark.parametrize(
    "url",
    ["http://fc-data.example", "http://127.0.0.1.example", "ftp://h", "h:80", "https://u:p@h", "https://", "https://h?a"],
)
def test_a_vendors_key_is_not_sent_in_clear_text(url: str) -> None:
    assert "https://" in refusal(fastconnect_url=url)


def test_beyond_loopback_it_needs_a_key_or_to_be_told() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com"):
        assert "API key" in refusal(host=host)
        assert read(host=host, insecure="true").insecure
        assert read(host=host, api_key_ingest=KEY).has_api_keys
    for host in ("127.0.0.1", "127.9.9.9", "localhost", "::1"):
        assert read(host=host).host == host


def test_origins_are_written_as_browsers_write_them() -> None:
    assert read().cors_origins == ()
    for text, origins in {
        "": (),
        "https://desk.example": ("https://desk.example",),
        " HTTPS://Desk.Example:443 , http://h:80,": ("https://desk.example", "http://h"),
        "http://127.0.0.1:8080,http://127.0.0.1:08080": ("http://127.0.0.1:8080",),
        "http://[::1]:3000": ("http://[::1]:3000",),
        "https://h:80": ("https://h:80",),
    }.items():
        assert read(cors_origins=text).cors_origins == origins


@pytest.mark.parametrize(
    "text",
    [
        "desk.example",
        "https://desk.example/",
        "https://desk.example/chart",
        "https://u@desk.example",
        "https://h:0",
        "https://h:65536",
        "https://h:",
        "ftp://h",
        "null",
        "https://*.desk.example",
        "https://a.example https://b.example",
        "*,https://desk.example",
    ],
)
def test_what_is_no_origin_is_refused(text: str) -> None:
    assert "cors_origins" in refusal(cors_origins=text, api_key_read=KEY).lower()


def test_every_web_page_may_read_only_with_a_key_or_when_told() -> None:
    for host in ("127.0.0.1", "localhost"):
        assert "cors_origins=*" in refusal(host=host, cors_origins="*")
        assert read(host=host, cors_origins="*", api_key_read=KEY).cors_origins == ("*",)
        assert read(host=host, cors_origins="*", insecure="true").cors_origins == ("*",)


def test_workers_fit_the_embedded_server() -> None:
    assert "--pg-max-connections 210" in refusal(workers="20")
    assert read(workers="20", pg_max_connections="210").workers == 20
    assert read(workers="20", database_url="postgresql://h/d").workers == 20


def test_zero_workers_are_one_a_core() -> None:
    assert read(workers="0", pg_max_connections="10000").workers >= 1


def test_a_certificate_needs_its_key_and_both_must_exist(tmp_path: Path) -> None:
    there = tmp_path / "file.pem"
    there.touch()
    assert "belong together" in refusal(ssl_keyfile=str(there))
    assert "no such file" in refusal(ssl_keyfile=str(there), ssl_certfile=str(tmp_path / "none"))
    got = read(ssl_keyfile=str(there), ssl_certfile=str(there))
    assert got.listen_url == "https://127.0.0.1:5000"


def test_sizes_that_exclude_each_other_are_refused() -> None:
    assert "inflight_max_bytes" in refusal(max_body_mb="300")
    assert "journal_max_bytes" in refusal(journal_max_bytes="2MB")


def test_relative_paths_start_at_the_root_and_in_flags_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read().data_dir == ROOT / "data"
    assert read(data_dir="x/y").data_dir == ROOT / "x" / "y"
    assert read({"data_dir": "x"}).data_dir == tmp_path.resolve() / "x"
    assert read({"log_file": "tickhub.log"}).log_file == str(tmp_path.resolve() / "tickhub.log")


@pytest.mark.parametrize(
    ("host", "bind", "url"),
    [
        ("127.0.0.1", "127.0.0.1:81", "http://127.0.0.1:81"),
        ("::1", "[::1]:81", "http://[::1]:81"),
        ("0.0.0.0", "0.0.0.0:81", "http://127.0.0.1:81"),
        ("::", "[::]:81", "http://[::1]:81"),
    ],
)
def test_addresses_are_written_as_programs_take_them(host: str, bind: str, url: str) -> None:
    got = read(host=host, port="81", insecure="true")
    assert (got.bind, got.listen_url) == (bind, url)


def test_the_environment_carries_all_settings_over() -> None:
    url = "postgresql://u:p%40$w@h/d"
    changed = read(
        {"flush_interval_s": "0.1234567", "access_log": "true", "pg_memory_mb": "1GB", "database_url": url},
        api_key_admin=f"{KEY},{KEY}2",
        oldest_time="2001-02-03",
        workers="3",
    )
    assert changed.flush_interval_s == 0.1234567
    assert load(changed.to_environ(), None, None) == changed
    assert load(read().to_environ(), None, None) == read()


def test_a_broken_env_file_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"TICKHUB_PORT=\xff\n")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load({}, None, file)


def test_a_byte_order_mark_and_dollars_are_taken_as_written(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "\ufeffTICKHUB_PORT=81\nTICKHUB_DATABASE_URL=postgresql://u:${HOME}@h/d\n", encoding="utf-8"
    )
    got = load({}, None, file)
    assert (got.port, got.database_url) == (81, "postgresql://u:${HOME}@h/d")


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TICKHUB_")}
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=clean | environ,
        timeout=60,
    )


@pytest.mark.parametrize("url", ["ftp://h", "h:5000", "http://", "http://u:hunter2@h", "http://h/?a=b", "http://h#x"])
def test_an_upstream_is_an_address_without_a_name_or_a_password(url: str) -> None:
    assert "http://10.0.0.5:5000" in refusal(upstream_url=url)
    assert read(upstream_url="https://other.example/desk/").upstream_url == "https://other.example/desk"
    assert read(upstream_url="http://[::1]:5000").upstream_url == "http://[::1]:5000"
    assert "hunter2" not in repr(read(upstream_api_key="hunter2"))


def test_a_wrong_setting_ends_a_command_with_one_line_and_status_2() -> None:
    got = run("serve", "--port", "x")
    assert (got.returncode, got.stderr.count("\n")) == (2, 1)
    assert got.stderr.startswith("tickhub: --port=x: ")


def test_an_unknown_command_is_refused_with_a_suggestion() -> None:
    got = run("srve")
    assert got.returncode == 2
    assert "did you mean serve" in got.stderr
    assert run().returncode == 2
    assert "rebuild" in run("--help").stdout


def test_the_url_is_the_last_line() -> None:
    url = "postgresql://u@h/d"
    assert run("url", "--database-url", url).stdout.splitlines()[-1] == url
    assert run("url", "--db-file", url).stdout.splitlines()[-1] == url


def test_serve_takes_every_setting_but_keys_as_a_flag() -> None:
    text = run("serve", "--help").stdout
    missing = [flag for row in TABLE for flag in row.flag_names if flag not in text]
    assert not missing
    assert "--api-key" not in text
