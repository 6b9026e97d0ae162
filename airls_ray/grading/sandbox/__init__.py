"""Runs untrusted Python programs and judges them from outside. Empty, so that its processes start fast."""
