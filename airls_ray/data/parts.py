"""Tables that several ranks computed together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def merge_parts(parts: Sequence[pa.Table]) -> pa.Table:
    """Join the parts of all ranks into one table in the order of their `row` column, which is dropped.

    Raises:
        ValueError: a row is missing or there twice.
    """
    joined = pa.concat_tables(parts)
    rows = joined["row"].to_numpy()
    order = np.argsort(rows, kind="stable")
    if not np.array_equal(rows[order], np.arange(len(rows))):
        raise ValueError(f"the parts of {len(parts)} ranks do not cover every row exactly once")
    return joined.drop_columns("row").take(pa.array(order)).combine_chunks()
