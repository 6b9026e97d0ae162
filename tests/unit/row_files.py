"""Files of rows, for tests that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
