"""Plain data as YAML that people read: in its own order, texts of several lines as such."""

from __future__ import annotations

from typing import Any

from planish.errors import MissingExtra


def dump(content: dict[str, Any]) -> str:
    """The text.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("PyYAML", "launch", "job files for Kubernetes and SkyPilot") from error

    class Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump(content, Dumper=Dumper, sort_keys=False, width=120)
