"""Series as CSV and as Parquet: a row a sample, a column a label."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from headgate.errors import HeadgateError
from headgate.observe.query import Sample, Series

__all__ = ["ExtraMissing", "as_series", "to_csv", "to_parquet"]


class ExtraMissing(HeadgateError):
    """A library is not installed."""


def as_series(samples: Sequence[Sample], at: float) -> list[Series]:
    """An answer at one moment in the form of one over time."""
    import numpy as np

    return [Series(one.labels, np.array([at]), np.array([one.value])) for one in samples]


def _columns(series: Sequence[Series]) -> list[str]:
    return sorted({name for one in series for name in one.labels})


def _safe(text: str) -> str:
    """What a spreadsheet would take for a formula is marked as text."""
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def to_csv(series: Sequence[Series]) -> str:
    """Text with a head line: `time` in seconds since 1970, the labels, `value`."""
    names = _columns(series)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["time", *names, "value"])
    for one in series:
        labels = [_safe(one.labels.get(name, "")) for name in names]
        for at, value in zip(one.times.tolist(), one.values.tolist(), strict=True):
            writer.writerow([f"{at:.3f}", *labels, repr(value)])
    return out.getvalue()


def to_parquet(series: Sequence[Series]) -> bytes:
    """A Parquet file with the same columns; `time` is a timestamp in UTC."""
    try:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]
    except ImportError as error:
        raise ExtraMissing('Parquet needs pyarrow: pip install "headgate[parquet]"') from error
    import numpy as np

    names = _columns(series)
    sizes = [len(one.times) for one in series]
    times = np.concatenate([one.times for one in series]) if series else np.empty(0)
    values = np.concatenate([one.values for one in series]) if series else np.empty(0)
    millis = np.round(times * 1000).astype("int64")
    columns: dict[str, Any] = {"time": pa.array(millis, pa.timestamp("ms", tz="UTC"))}
    for name in names:
        said = [one.labels.get(name) for one in series]
        places = np.repeat(np.arange(len(series)), sizes).astype("int32")
        columns[name] = pa.array(said, pa.string()).take(pa.array(places))
    columns["value"] = pa.array(values)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return out.getvalue()
