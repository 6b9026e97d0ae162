"""Credit: from outcomes and step rewards to advantages.

`formulas.py` has what every method does. What is done to the rewards before is named in the configuration:
`transforms/`, `terms/` and `filters/` hold the built-in ones, a file each (`kinds.py` says what one takes).
"""
