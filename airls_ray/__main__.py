"""`python -m airls_ray`: the console script where it is not on the path."""

from __future__ import annotations

from airls_ray.cli.main import main

if __name__ == "__main__":
    main()
