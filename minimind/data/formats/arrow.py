"""Parquet, Arrow files and Arrow streams (what ``datasets`` keeps), through pyarrow.

Only the column of the text is read, a row group's pages or a record batch at a time.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimind.data.chunks import Chunk, Place, Record, pack_records
from minimind.data.fields import unknown_field
from minimind.data.formats.rows_to_json import text_line, to_line
from minimind.errors import DataError

log = logging.getLogger(__name__)

BATCH_BYTES = 1 << 20
"""About so much of a column is decoded at once."""

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass(frozen=True)
class _Batch:
    """Some rows that follow one another: the first's number (from 1), and how to get them."""

    first: int
    rows: Any
    position: int
    row_group: int | None = None


def read_parquet(path: Path, start: Place, field: str | None) -> Iterator[Chunk]:
    """Yield a Parquet file's rows, by the page."""
    return _read(path, "Parquet", start, field, _parquet_batches)


def read_arrow_file(path: Path, start: Place, field: str | None) -> Iterator[Chunk]:
    """Yield an Arrow file's rows, by the record batch."""
    return _read(path, "Arrow", start, field, _file_batches)


def read_arrow_stream(path: Path, start: Place, field: str | None) -> Iterator[Chunk]:
    """Yield an Arrow stream's rows, by the record batch."""
    return _read(path, "Arrow", start, field, _stream_batches)


def parquet_columns(path: Path, _: str) -> list[str]:
    """A Parquet file's fields, by path."""
    with _errors(path, "Parquet"), _open_parquet(path) as file:
        return _leaves(file.schema_arrow)


def arrow_file_columns(path: Path, _: str) -> list[str]:
    """An Arrow file's fields, by path."""
    pa = pyarrow()
    with _errors(path, "Arrow"), pa.OSFile(str(path)) as raw, pa.ipc.open_file(raw) as file:
        return _leaves(file.schema)


def arrow_stream_columns(path: Path, _: str) -> list[str]:
    """An Arrow stream's fields, by path."""
    pa = pyarrow()
    with _errors(path, "Arrow"), pa.OSFile(str(path)) as raw, pa.ipc.open_stream(raw) as stream:
        return _leaves(stream.schema)


def pyarrow() -> Any:
    """The library, which is not installed everywhere.

    Raises:
        DataError: it is not there.
    """
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise DataError(
            "Parquet and Arrow files need pyarrow: pip install 'minimind-cluster[data]'"
        ) from None
    return pa


def _read(
    path: Path,
    what: str,
    start: Place,
    field: str | None,
    batches: Callable[[Path, Place, str | None], Iterator[_Batch]],
) -> Iterator[Chunk]:
    def records() -> Iterator[Record]:
        for batch in batches(path, start, field):
            for number, line in enumerate(_lines(batch.rows, field), batch.first):
                yield Record(number, line, batch.position, batch.row_group)

    with _errors(path, what):
        yield from pack_records(records(), start)


class _UnknownFieldError(Exception):
    pass


@contextlib.contextmanager
def _errors(path: Path, what: str) -> Iterator[None]:
    """Tell what is damaged from what pyarrow cannot read."""
    pa = pyarrow()
    try:
        yield
    except _UnknownFieldError as error:
        raise DataError(f"{path}: {error}") from None
    except pa.ArrowNotImplementedError as error:
        reason = f"pyarrow {pa.__version__} cannot read this {what} file: {_first_line(error)}"
        raise DataError(f"{path}: {reason}") from None
    except (MemoryError, pa.ArrowMemoryError):
        raise DataError(f"{path}: there is too little memory for a part of this file") from None
    except (pa.ArrowException, OSError, EOFError, ValueError, OverflowError) as error:
        # Damage comes as an OSError without a number.
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        reason = f"damaged or incomplete {what} file ({_first_line(error)})"
        raise DataError(f"{path}: {reason}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _open_parquet(path: Path) -> Any:
    pyarrow()
    from pyarrow.parquet import ParquetFile

    # Buffered: otherwise all of a column's row group is read at once.
    return ParquetFile(path, buffer_size=BATCH_BYTES, pre_buffer=False)


def _parquet_batches(path: Path, start: Place, field: str | None) -> Iterator[_Batch]:
    with _open_parquet(path) as file:
        columns = None if field is None else [_column(file.schema_arrow, field)]
        metadata, size = file.metadata, path.stat().st_size
        first = 1
        for group in range(metadata.num_row_groups):
            n_rows = metadata.row_group(group).num_rows
            if first + n_rows - 1 <= start.line:
                first += n_rows
                continue
            found = file.iter_batches(
                _rows_at_once(metadata.row_group(group), columns),
                row_groups=[group],
                columns=columns,
                use_threads=False,
            )
            for batch in found:
                done = (first - 1 + batch.num_rows) / max(metadata.num_rows, 1)
                yield _Batch(first, _values(batch, field), int(done * size), group + 1)
                first += batch.num_rows


def _rows_at_once(group: Any, columns: list[str] | None) -> int:
    """How many rows are about :data:`BATCH_BYTES`, by what the file says of its size."""
    size = 0
    for number in range(group.num_columns):
        chunk = group.column(number)
        if columns is None or _is_under(chunk.path_in_schema, columns[0]):
            size += max(chunk.total_uncompressed_size, 0)
    return max(1, min(10_000, int(BATCH_BYTES * group.num_rows / max(size, 1))))


def _is_under(path: str, column: str) -> bool:
    return path == column or path.startswith(f"{column}.")


def _file_batches(path: Path, start: Place, field: str | None) -> Iterator[_Batch]:
    pa = pyarrow()
    with pa.OSFile(str(path)) as raw:
        with pa.ipc.open_file(raw) as file:
            schema, number = file.schema, file.num_record_batches
        with pa.ipc.open_file(raw, options=_options(schema, field)) as file:
            batches = (file.get_batch(i) for i in range(number))
            yield from _numbered(batches, field, raw)


def _stream_batches(path: Path, start: Place, field: str | None) -> Iterator[_Batch]:
    pa = pyarrow()
    _note_missing_end(path)
    with pa.OSFile(str(path)) as raw, pa.ipc.open_stream(raw) as stream:
        schema = stream.schema
    options = _options(schema, field)
    with pa.OSFile(str(path)) as raw, pa.ipc.open_stream(raw, options=options) as stream:
        yield from _numbered(iter(stream), field, raw)


def _note_missing_end(path: Path) -> None:
    """A stream may do without an end mark; but then nobody can tell whether all of it is there."""
    with open(path, "rb") as file:
        file.seek(-min(path.stat().st_size, len(END_OF_STREAM)), 2)
        if file.read() != END_OF_STREAM:
            log.warning("%s: has no end mark; if its writer was stopped, rows are missing", path)


def _options(schema: Any, field: str | None) -> Any:
    pa = pyarrow()
    if field is None:
        return pa.ipc.IpcReadOptions(use_threads=False)
    top = _column(schema, field) if field in schema.names else field.partition(".")[0]
    _column(schema, field)
    return pa.ipc.IpcReadOptions(included_fields=[schema.names.index(top)], use_threads=False)


def _numbered(batches: Iterator[Any], field: str | None, raw: Any) -> Iterator[_Batch]:
    first = 1
    for batch in batches:
        _check_offsets(batch)
        n_rows = max(1, int(BATCH_BYTES * batch.num_rows / max(batch.nbytes, 1)))
        for begin in range(0, batch.num_rows, n_rows):
            part = batch.slice(begin, n_rows)
            yield _Batch(first, _values(part, field), raw.tell())
            first += part.num_rows


def _check_offsets(batch: Any) -> None:
    """Where texts begin and end is taken from the file: a damaged one would read foreign memory.

    Raises:
        ArrowInvalid: it is damaged.
    """
    for column in batch.columns:
        _as_bytes(column).validate(full=True)  # whether it is UTF-8, each row says


def _column(schema: Any, field: str) -> str:
    """The field as pyarrow knows it: a column's own name wins over a path in its name.

    Raises:
        _UnknownFieldError: there is no such field.
    """
    if field in schema.names or field in _paths(schema):
        return field
    raise _UnknownFieldError(unknown_field(field, _leaves(schema)))


def _values(batch: Any, field: str | None) -> Any:
    """The batch itself, or the values of its field."""
    if field is None:
        return batch
    if field in batch.schema.names:
        return batch.column(batch.schema.names.index(field))
    from pyarrow.compute import struct_field

    top, *inner = field.split(".")
    return struct_field(batch.column(batch.schema.names.index(top)), inner)


def _lines(values: Any, field: str | None) -> Iterator[bytes]:
    if field is None:
        return (to_line(row) for row in _to_python(values))
    return (text_line(field, value) for value in _to_python(values))


def _to_python(values: Any) -> list[Any]:
    try:
        return values.to_pylist()
    except UnicodeDecodeError:
        return [_row(values.slice(number, 1)) for number in range(len(values))]


def _row(value: Any) -> Any:
    """The only value of a part, whose text may be no UTF-8, however deep: its reader says so."""
    try:
        return value.to_pylist()[0]
    except UnicodeDecodeError:
        return _surrogates(_as_bytes(value).to_pylist()[0])


def _as_bytes(values: Any) -> Any:
    """The same memory, with bytes where there is text."""
    pa = pyarrow()
    if isinstance(values, pa.RecordBatch):
        columns = [_as_bytes(column) for column in values.columns]
        return pa.RecordBatch.from_arrays(columns, names=values.schema.names)
    kind = _without_encoding(values.type)
    return values if kind == values.type else values.view(kind)


def _without_encoding(kind: Any) -> Any:
    """The type of the same memory, with bytes where ``kind`` has text."""
    pa = pyarrow()
    types = pa.types
    plain = (
        (types.is_string, pa.binary),
        (types.is_large_string, pa.large_binary),
        (types.is_string_view, pa.binary_view),
    )
    for is_text, as_bytes in plain:
        if is_text(kind):
            return as_bytes()
    inner = _without_encoding
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, inner(kind.value_type), kind.ordered)
    if types.is_struct(kind):
        return pa.struct([field.with_type(inner(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(inner(kind.key_type), inner(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(inner(kind.value_type)), kind.list_size)
    lists = (
        (types.is_list, pa.list_),
        (types.is_large_list, pa.large_list),
        (types.is_list_view, pa.list_view),
        (types.is_large_list_view, pa.large_list_view),
    )
    for is_list, list_of in lists:
        if is_list(kind):
            return list_of(kind.value_field.with_type(inner(kind.value_type)))
    return kind


def _surrogates(value: Any) -> Any:
    """Bytes as text that becomes these bytes again."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_surrogates(key): _surrogates(each) for key, each in value.items()}
    return [_surrogates(each) for each in value] if isinstance(value, (list, tuple)) else value


def _paths(fields: Any) -> Iterator[str]:
    """All that a path can name: columns, and what is inside of structs."""
    for name, inner in _named(fields):
        yield name
        yield from (f"{name}.{path}" for path in _paths(inner))


def _leaves(fields: Any) -> list[str]:
    found = []
    for name, inner in _named(fields):
        found += [f"{name}.{leaf}" for leaf in _leaves(inner)] or [name]
    return found


def _named(fields: Any) -> list[tuple[str, Any]]:
    """Names and what is inside, of a schema or of a struct's type."""
    from pyarrow.types import is_struct

    return [(each.name, each.type if is_struct(each.type) else ()) for each in fields]
