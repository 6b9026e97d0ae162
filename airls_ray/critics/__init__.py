"""Generative critics: language models that are asked in words whether steps or solutions are right."""
