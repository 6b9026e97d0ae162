"""Built-in outcome terms, one file each: a new file here is a new name for `method.outcome_terms`."""
