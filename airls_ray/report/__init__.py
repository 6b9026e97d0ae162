"""One-page HTML reports of a run, and of several runs over each other; they need no network."""

from airls_ray.report.comparison import write_comparison
from airls_ray.report.report import write_report

__all__ = ["write_comparison", "write_report"]
