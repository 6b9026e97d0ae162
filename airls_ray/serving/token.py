"""The bearer token: read once, kept and compared as a digest, so that only clients hold it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import MutableMapping
from pathlib import Path

from airls_ray.errors import ConfigError

VARIABLE = "AIRLS_RAY_TOKEN"


def read_token(file: Path | None, environment: MutableMapping[str, str]) -> bytes | None:
    """Return the digest of the token in `file`, or else of the environment's, or None where there is none.

    The variable is removed from the environment: child processes inherit what is in it.

    Raises:
        ConfigError: the file cannot be read, or the token is empty or not ASCII.
    """
    given = environment.pop(VARIABLE, None)
    where = VARIABLE
    if file is not None:
        where = str(file)
        try:
            given = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"cannot read the token file {file}: {reason}") from error
    if given is None:
        return None
    token = given.strip()
    if not token or not token.isascii() or any(character.isspace() for character in token):
        raise ConfigError(f"{where} must hold one token of ASCII characters without blanks")
    return digest(token)


def digest(token: str) -> bytes:
    """SHA-256 of a token."""
    return hashlib.sha256(token.encode()).digest()


def is_allowed(authorization: str | None, expected: bytes | None) -> bool:
    """Whether a request with this Authorization header may pass; the time does not depend on the token."""
    if expected is None:
        return True
    scheme, _, token = (authorization or "").partition(" ")
    return hmac.compare_digest(digest(token.strip()), expected) and scheme.lower() == "bearer"


def check_exposure(host: str, expected: bytes | None) -> None:
    """Refuse to listen beyond this machine without a token.

    Raises:
        ConfigError: `host` is not loopback, and there is no token.
    """
    if expected is None and not _is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines: give a token by --token-file or {VARIABLE}, or "
            "leave --host at 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"
