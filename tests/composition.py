"""deploy/compose.yml as its services get it: merged, with a value for each variable of .env.example."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
FILE, EXAMPLE = DEPLOY / "compose.yml", DEPLOY / ".env.example"
ENTRYPOINT = ("python", "-m", "app")
"""The image's; tests/process/test_image.py holds the Dockerfile to it."""

_VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?::([?-])([^}]*))?\}")


class MissingVariable(Exception):
    """A variable without which nothing is to start."""


def example() -> dict[str, str]:
    """Return the names of .env.example with what stands there."""
    lines = (line.strip() for line in EXAMPLE.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def filled_in() -> dict[str, str]:
    """Return .env as somebody makes it of the example: a value of its own for each that is empty."""
    return {name: text or f"{name.lower().replace('_', '')}0123456789" for name, text in example().items()}


class Composition:
    """The services. secrets: the values that were filled in, by name."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        """Read the file. Raises MissingVariable."""
        self.variables = dict(filled_in() if variables is None else variables)
        self.secrets = {name: self.variables.get(name, "") for name, text in example().items() if not text}
        self.asked: set[str] = set()
        self.file: dict[str, Any] = self._resolved(yaml.safe_load(FILE.read_text()))
        self.services: dict[str, dict[str, Any]] = self.file["services"]

    def environment(self, service: str) -> dict[str, str]:
        return dict(self.services[service].get("environment", {}))

    def is_tickhub(self, service: str) -> bool:
        return bool(self.services[service]["image"] == self.services["server"]["image"])

    def entrypoint(self, service: str) -> list[str]:
        own = self.services[service].get("entrypoint")
        return list(own if own is not None else ENTRYPOINT if self.is_tickhub(service) else ())

    def command(self, service: str) -> list[str]:
        """Return what is run: entrypoint and command."""
        own = self.services[service].get("command", ["serve"] if service == "server" else [])
        return [*self.entrypoint(service), *own]

    def health_check(self, service: str) -> list[str]:
        kind, *words = self.services[service]["healthcheck"]["test"]
        return ["sh", "-c", *words] if kind == "CMD-SHELL" else words

    def mounted(self, service: str, target: str) -> Path:
        """Return the file of deploy/ that a service finds there."""
        for volume in self.services[service]["volumes"]:
            source, where, _ = f"{volume}:".split(":", 2)
            if where == target:
                return DEPLOY / source
        raise AssertionError(f"{service} has no {target}")

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._resolved(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        return _VARIABLE.sub(self._value, value) if isinstance(value, str) else value

    def _value(self, found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        name, kind, default = found.groups()
        self.asked.add(name)
        if text := self.variables.get(name):
            return text
        if kind == "?":
            raise MissingVariable(name)
        return default or ""
