"""What `search.scorer` names: a file each, whose first line `airls-ray list` shows."""
