"""What a run needs, worked out from its configuration alone: no Ray, no torch, no download."""

from airls_ray.planning.plan import Plan, make_plan

__all__ = ["Plan", "make_plan"]
