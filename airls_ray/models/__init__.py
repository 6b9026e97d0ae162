"""Policies and process reward models: made, checked, loaded, saved, and wrapped for training."""
