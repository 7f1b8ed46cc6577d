"""deploy/compose.yml: taken by Docker Compose, closed but for two doors, without a secret of its own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app.settings import BY_NAME, load
from tests.composition import DEPLOY, EXAMPLE, FILE, Composition, MissingVariable, example, filled_in
from tests.waiting import skip_here

SERVICES = sorted(Composition().services)


def config(env_file: Path) -> subprocess.CompletedProcess[str]:
    found = shutil.which("docker-compose")
    if found is None:
        skip_here("docker-compose is not installed (Debian: apt-get install docker-compose)")
    command = [found, "-f", str(FILE), "--env-file", str(env_file), "config"]
    nothing = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=nothing, capture_output=True, text=True, timeout=60, check=False)


def env_file(place: Path, **changed: str) -> Path:
    path = place / "env"
    path.write_text("".join(f"{name}={text}\n" for name, text in (filled_in() | changed).items()))
    return path


def test_docker_compose_takes_it_and_sees_what_the_tests_see(tmp_path: Path) -> None:
    done = config(env_file(tmp_path))
    assert done.returncode == 0, done.stderr
    seen = yaml.safe_load(done.stdout)["services"]
    ours = Composition()
    assert seen.keys() == ours.services.keys()
    for name in seen:
        assert {key: str(text) for key, text in (seen[name].get("environment") or {}).items()} == {
            key: str(text) for key, text in ours.environment(name).items()
        }


def test_nothing_starts_while_a_secret_is_missing(tmp_path: Path) -> None:
    secrets = [name for name, text in example().items() if not text]
    assert len(secrets) == 8
    for name in secrets:
        with pytest.raises(MissingVariable, match=name):
            Composition(filled_in() | {name: ""})
    refused = config(env_file(tmp_path, REDIS_PASSWORD=""))
    assert (refused.returncode, "REDIS_PASSWORD" in refused.stderr) == (1, True)


def test_the_example_has_every_variable_and_no_secret() -> None:
    compose = Composition()
    assert compose.asked == set(example()) - {"COMPOSE_PROJECT_NAME"}
    assert all(not text for name, text in example().items() if name.endswith(("PASSWORD", "KEY")))
    assert not re.search(r"(?i)password[\"']?\s*[:=]\s*[\"']?[a-z0-9]{4}", FILE.read_text())
    # Else `python -m app` in the same shell would refuse them as settings that it does not know.
    assert not [name for name in example() if name.startswith("TICKHUB_")]
    ignored = subprocess.run(["git", "check-ignore", "-q", DEPLOY / ".env"], cwd=DEPLOY, check=False).returncode
    assert ignored == 0 or not (DEPLOY.parent / ".git").exists()
    assert EXAMPLE.read_text().count("openssl rand") == 1


def test_only_the_server_and_grafana_can_be_reached_and_from_this_machine_alone() -> None:
    compose = Composition()
    published = {name: spec["ports"] for name, spec in compose.services.items() if "ports" in spec}
    assert published == {"server": ["127.0.0.1:5000:5000"], "grafana": ["127.0.0.1:3000:3000"]}
    assert compose.file["networks"]["internal"] == {"internal": True}
    for name, spec in compose.services.items():
        assert spec["networks"] == (["internal", "published"] if name in published else ["internal"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_bounded_and_has_no_more_rights_than_it_needs(name: str) -> None:
    spec = Composition().services[name]
    assert re.fullmatch(r"[\w./-]+:(v?\d+\.\d+(\.\d+)?(-\w+)?|local)", spec["image"])
    assert spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert spec["read_only"] is spec["init"] is True
    assert "privileged" not in spec
    assert not {"network_mode", "pid", "ipc"} & spec.keys()
    assert spec["logging"]["options"]["max-size"]
    assert spec["restart"] == ("no" if name == "migrate" else "unless-stopped")


def test_services_wait_for_what_can_say_that_it_is_well() -> None:
    compose = Composition()
    for name, spec in compose.services.items():
        for other, how in spec.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert compose.health_check(other), (name, other)
            else:
                assert (other, how["condition"]) == ("migrate", "service_completed_successfully")
    assert not compose.services.keys() - {"migrate", "backup", "upkeep"} - {
        name for name, spec in compose.services.items() if "test" in spec.get("healthcheck", {})
    }


def test_what_is_mounted_is_there_and_what_is_kept_is_named() -> None:
    compose = Composition()
    for spec in compose.services.values():
        for volume in spec.get("volumes", []):
            source, _, mode = f"{volume}:rw".split(":")[:3]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), volume
                assert mode == "ro"
            else:
                assert source in compose.file["volumes"]
        if isinstance(build := spec.get("build"), dict):
            assert (DEPLOY / build["context"] / build.get("dockerfile", "Dockerfile")).exists()


def test_the_poolers_image_is_built_of_one_known_base_and_run_by_somebody_else_than_root() -> None:
    lines = dict(line.split(None, 1) for line in (DEPLOY / "pgbouncer" / "Dockerfile").read_text().splitlines() if line)
    assert re.fullmatch(r"debian:\w+-\d{8}-slim", lines["FROM"])
    assert lines["USER"] == "postgres"
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "pgbouncer" / "Dockerfile").read_text(), re.MULTILINE)
    sources = [name for names in copied for name in names.split()]
    sent = {line[1:] for line in (DEPLOY / "pgbouncer" / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert sent == set(sources)
    assert all((DEPLOY / "pgbouncer" / name).exists() for name in sources)
    assert (DEPLOY / "pgbouncer" / "entrypoint.sh").stat().st_mode & 0o111


@pytest.mark.parametrize("name", [name for name in SERVICES if Composition().is_tickhub(name)])
def test_the_server_takes_the_settings_it_is_given(name: str) -> None:
    compose = Composition()
    given = compose.environment(name) | {"TICKHUB_HOST": "0.0.0.0", "TICKHUB_REQUIRE_API_KEYS": "true"}
    settings = load(given, env_file=None)
    # What is taken over with the server can neither change tables nor get at the owner.
    assert (settings.direct_database_url, "owner" in settings.database_url) == ("", name in ("migrate", "upkeep"))
    if name == "server":
        assert compose.services[name]["stop_grace_period"] == f"{settings.shutdown_grace_s + 15}s"
        assert settings.port == BY_NAME["port"].default == 5000
