"""Configuration: frozen pydantic models, YAML files and `a.b=c` overrides. Imports without torch."""

from airls_ray.config.load import load_config, parse_overrides
from airls_ray.config.schema import Config

__all__ = ["Config", "load_config", "parse_overrides"]
