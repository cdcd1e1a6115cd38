from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from ray_app.data.numbers import as_numbers

NAN = float("nan")


@pytest.mark.parametrize(
    ("column", "values", "bad"),
    [
        (pa.array([1, None, -2]), [1, NAN, -2], []),
        (pa.array([0.5, NAN, float("inf")]), [0.5, NAN, NAN], [2]),
        (pa.array([Decimal("2.55")]), [2.55], []),
        (pa.array(["1", " -2.5 ", "+4", "1e3", ".5", "", None]), [1, -2.5, 4, 1000, 0.5, NAN, NAN], []),
        (pa.array(["$24.95", "£3", "€"]), [24.95, 3, NAN], []),
        (pa.array(["twelve", "1,5", "0x10", "inf", "1e400", "12 kg", "--1"]), [NAN] * 7, [0, 1, 2, 3, 4, 5, 6]),
        (pa.array(["3", "3"]).dictionary_encode(), [3, 3], []),
        (pa.array([True, None]), [NAN, NAN], [0]),
        (pa.array([[1.0]]), [NAN], [0]),
        (pa.nulls(2), [NAN, NAN], []),
    ],
)
def test_reads_numbers_of_any_type(column: pa.Array, values: list[float], bad: list[int]):
    found, refused = as_numbers(column)
    np.testing.assert_allclose(found, values, rtol=1e-12)
    assert np.flatnonzero(refused).tolist() == bad
