"""Search at test time: algorithms as pure ask/tell objects, one ledger, records of what was found.

`tree` holds the state, `searcher` the protocol, each algorithm its own module, `registry` the names.
"""
