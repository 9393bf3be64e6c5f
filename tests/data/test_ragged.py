from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lsfa_jax.data.ragged import Ragged


def unragged(values, offsets):
    return [values[start:end].tolist() for start, end in pairwise(offsets)]


@given(st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8), st.data())
def test_rows_agree_with_a_plain_loop(rows, data):
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12)) if rows else []
    joined = Ragged.from_rows(rows)
    assert [joined.row(i).tolist() for i in range(joined.num_rows)] == rows
    assert joined.sizes.tolist() == [len(row) for row in rows]
    assert joined.row_ids.tolist() == [i for i, row in enumerate(rows) for _ in row]
    taken = joined.take(np.array(chosen, np.int64))
    assert unragged(*taken) == [rows[i] for i in chosen]
    assert taken.offsets.dtype == np.int64
    mask = np.array([len(row) > 2 for row in rows], bool)
    assert unragged(*joined.take(mask)) == [row for row in rows if len(row) > 2]
