"""Records as columns: one fixed Arrow schema, and the way there and back without the loss of a byte.

The schema is made of `records.FIELDS`: a column a field, whether or not any record has it, so that a file of nulls has
the types of all others. `labels` is a struct of 14 nullable int8; findings and steps are lists of structs. Three things
are told otherwise than in JSON, because a column has one type:

- an image that is a text is a struct that has a `path` only;
- what a provenance entry says beside the fixed keys is its list of `policies`, each a name and a value;
- a key that is left out is null. A null that stands in the record is rare, but for the `label` of a finding: there null
  means null.

What the columns can't say exactly goes into the last one, `extra`, as JSON: fields that `FIELDS` doesn't know, and
whole fields of a form that the schema doesn't have (a key of somebody's own in a finding, 3 for 3.0, half an emoji, a
null). Their own column then holds what of it fits, for those who read columns, and `extra` what counts on the way back.
So ``records.dumps`` writes the same line before and after.

pyarrow is imported when it is first needed; `pyarrow` raises a CxrError that says what to install where it is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from cxr_reason import records
from cxr_reason.errors import CxrError

SCHEMA_VERSION = 1
EXTRA = "extra"
_VERSION = "cxr.schema"  # the key of the schema's own metadata
# Keys of an object that are written even where they are null.
_SAID = frozenset({"label"})
_OFFSETS = range(-(2**31), 2**31)
# In an IPC stream: no more messages.
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"

Prepared = dict[str, Any]
"""One record as its columns take it; columns that it lacks are left out."""


def pyarrow() -> Any:
    """The module pyarrow. Raises CxrError with the command that installs it."""
    try:
        import pyarrow
        import pyarrow.ipc
    except ModuleNotFoundError:
        from cxr_reason.environment import install_line

        raise CxrError("Arrow and Parquet need pyarrow: it is not installed", hint=install_line(["pyarrow"])) from None
    return pyarrow


# ------------------------------------------------------------------------------------------------- values and columns


def _same(value: Any) -> Any:
    return value


def _scalars(array: Any) -> list[Any]:
    return list(array.to_pylist())


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one shape are told in a column."""

    fits: Callable[[Any], bool]
    """Whether `read` gives back just what `put` takes. Asked of every value, so it is quick."""
    near: Callable[[Any], Any]
    """For a value that doesn't fit: what of it the column can hold, or None."""
    put: Callable[[Any], Any] = _same
    read: Callable[[Any], list[Any]] = _scalars
    """The values of an array, None where it is null. Columns within columns are read as columns too: pyarrow's own
    `to_pylist` makes all keys of all objects, most of which are null and would have to go again."""


def _numbers(array: Any) -> list[Any]:
    """pandas writes NaN where nothing stood; we never do."""
    return [None if value != value else value for value in array.to_pylist()]


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:  # half an emoji
        return False
    return True


def _near_text(value: Any) -> str | None:
    return value.encode(errors="replace").decode() if isinstance(value, str) else None


def _near_number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _is_state(value: Any) -> bool:
    return type(value) is int and -1 <= value <= 1


def _is_offset(value: Any) -> bool:
    return type(value) is int and value in _OFFSETS


SCALARS = {
    "text": Codec(_is_text, _near_text),
    "bool": Codec(lambda value: type(value) is bool, lambda value: None),
    "state": Codec(_is_state, lambda value: None),
    "offset": Codec(_is_offset, lambda value: None),
    "number": Codec(lambda value: type(value) is float and math.isfinite(value), _near_number, read=_numbers),
}


def _list(item: Codec) -> Codec:
    fits, near, put = item.fits, item.near, item.put

    def are_near(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return None
        return [put(entry) if fits(entry) else near(entry) for entry in value]

    def read(array: Any) -> list[Any]:
        entries = iter(item.read(array.flatten()))
        lengths = array.value_lengths().to_pylist()
        return [None if length is None else list(islice(entries, length)) for length in lengths]

    return Codec(
        lambda value: isinstance(value, list | tuple) and all(map(fits, value)),
        are_near,
        _same if put is _same else lambda value: list(map(put, value)),
        read,
    )


def _object(members: Mapping[str, Codec]) -> Codec:
    """Objects with some of the keys of `members`, in that order. None of the members' codecs may have a `put`."""
    assert all(member.put is _same for member in members.values())
    said = _SAID & set(members)
    tests = {key: (number, member.fits) for number, (key, member) in enumerate(members.items())}

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        last = -1
        for key, entry in value.items():
            number, test = tests.get(key, (-1, bool))
            if number <= last or not (test(entry) or (entry is None and key in said)):
                return False
            last = number
        return said <= value.keys()

    def near(value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        held = {key: value[key] for key in members if value.get(key) is not None}
        return {key: entry if members[key].fits(entry) else members[key].near(entry) for key, entry in held.items()}

    def read(array: Any) -> list[Any]:
        found: list[Any] = [{} for _ in range(len(array))]
        columns = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        for key, member in members.items():
            column = columns.get(key)
            if key in said:
                for value, entry in zip(
                    found, [None] * len(found) if column is None else member.read(column), strict=True
                ):
                    value[key] = entry
            elif column is not None and column.null_count < len(column):
                for value, entry in zip(found, member.read(column), strict=True):
                    if entry is not None:
                        value[key] = entry
        if array.null_count:
            found = [value if valid else None for value, valid in zip(found, array.is_valid().to_pylist(), strict=True)]
        return found

    return Codec(fits, near, read=read)


def _codec(shape: records.Shape) -> Codec:
    if isinstance(shape, str):
        return SCALARS[shape]
    if isinstance(shape, list):
        return _list(_codec(shape[0]))
    return _object({key: _codec(inner) for key, inner in shape.items()})


def _image(inner: Codec) -> Codec:
    """An image is a text, or an object that says more than the path."""

    def read(array: Any) -> list[Any]:
        found = inner.read(array)
        return [image["path"] if image and image.keys() == {"path"} else image for image in found]

    return Codec(
        lambda value: _is_text(value) or (inner.fits(value) and value.keys() != {"path"}),
        lambda value: {"path": _near_text(value)} if isinstance(value, str) else inner.near(value),
        lambda value: {"path": value} if isinstance(value, str) else value,
        read,
    )


def _provenance(members: Mapping[str, Codec]) -> Codec:
    """An entry of the provenance: some of `members`, and after them policies of any name, which are texts."""
    fixed = frozenset(members)
    inner = _object(members)
    whole = _object({**members, "policies": _list(_object(dict.fromkeys(("name", "value"), SCALARS["text"])))})

    def parts(value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        known = {key: entry for key, entry in value.items() if key in fixed}
        return known, {key: entry for key, entry in value.items() if key not in fixed}

    def fits(value: Any) -> bool:
        if type(value) is not dict:
            return False
        known, policies = parts(value)
        return (
            [*known, *policies] == list(value)
            and inner.fits(known)
            and all(_is_text(key) and _is_text(entry) for key, entry in policies.items())
        )

    def put(value: Any) -> Any:
        known, policies = parts(value)
        told = [{"name": name, "value": policy} for name, policy in policies.items()]
        return {**known, "policies": told} if told else known

    def near(value: Any) -> Any:
        if not isinstance(value, dict):
            return None
        known, policies = parts(value)
        texts = {key: entry for key, entry in policies.items() if _is_text(key) and _is_text(entry)}
        return put({**inner.near(known), **texts})

    def read(array: Any) -> list[Any]:
        found = whole.read(array)
        for value in filter(None, found):
            for policy in value.pop("policies", None) or ():
                value[policy["name"]] = policy["value"]
        return found

    return Codec(fits, near, put, read)


def _codecs() -> dict[str, Codec]:
    codecs = {name: _codec(field.kind.shape) for name, field in records.FIELDS.items()}
    images, provenance = records.IMAGE.shape, records.PROVENANCE.shape
    assert isinstance(provenance, dict)
    codecs["images"] = _list(_image(_codec(images)))
    codecs["provenance"] = _list(_provenance({key: _codec(shape) for key, shape in provenance.items()}))
    return codecs


CODECS = _codecs()


@cache
def schema() -> Any:
    """The one schema, a `pyarrow.Schema`: the fields of `records.FIELDS` in their order, and `extra`."""
    pa = pyarrow()
    scalars = {"text": pa.string(), "bool": pa.bool_(), "number": pa.float64()}
    scalars |= {"state": pa.int8(), "offset": pa.int32()}

    def kind(shape: records.Shape) -> Any:
        if isinstance(shape, str):
            return scalars[shape]
        if isinstance(shape, list):
            return pa.list_(kind(shape[0]))
        return pa.struct([(key, kind(inner)) for key, inner in shape.items()])

    policies: records.Shape = [{"name": "text", "value": "text"}]
    shapes = {name: field.kind.shape for name, field in records.FIELDS.items()}
    assert isinstance(records.PROVENANCE.shape, dict)
    shapes["provenance"] = [{**records.PROVENANCE.shape, "policies": policies}]
    columns = [(name, kind(shape)) for name, shape in shapes.items()]
    return pa.schema([*columns, (EXTRA, pa.string())], metadata={_VERSION: str(SCHEMA_VERSION)})


# ------------------------------------------------------------------------------------------------ records to columns


def prepare(study: Iterable[Mapping[str, Any]]) -> list[Prepared]:
    """Records, best those of one study, as the columns take them. Raises ValueError like `records.dumps`.

    What the records of a study share, the very objects, is looked at once.
    """
    prepared = []
    shared: dict[str, tuple[Any, bool]] = {}
    for record in study:
        row: Prepared = {}
        extra = {}
        for name, value in record.items():
            codec = CODECS.get(name)
            if codec is None:
                extra[name] = value
                continue
            known = shared.get(name)
            if known is None or known[0] is not value:
                known = shared[name] = value, codec.fits(value)
            if known[1]:
                row[name] = codec.put(value)
            else:
                extra[name] = value
                if value is not None:
                    row[name] = codec.near(value)
        if extra:
            row[EXTRA] = records.dumps_plain(extra).decode()
        prepared.append(row)
    return prepared


def build(rows: Sequence[Prepared]) -> list[Any]:
    """`rows` as record batches of `schema()`: one, or several where a column would hold more than 2 GiB of text."""
    pa = pyarrow()
    try:
        arrays = [_column(pa, [row.get(field.name) for row in rows], field.type) for field in schema()]
        return [pa.record_batch(arrays, schema=schema())]
    except (pa.ArrowCapacityError, _Chunked):
        half = len(rows) // 2
        assert half, "a record is shorter than that: see streams.LINE_BYTES"
        return build(rows[:half]) + build(rows[half:])


class _Chunked(Exception):
    """A column too long for one array."""


def _column(pa: Any, values: list[Any], kind: Any) -> Any:
    distinct = {id(value): value for value in values}
    if distinct.keys() == {id(None)}:
        return pa.nulls(len(values), kind)
    if pa.types.is_nested(kind) and 4 * len(distinct) < 3 * len(values):
        # The findings of a study stand in each of its records. To turn them into columns is most of the work.
        places = {key: number for number, key in enumerate(distinct)}
        once = pa.array(list(distinct.values()), kind)
        array = once.take(pa.array([places[id(value)] for value in values], pa.int32()))
    else:
        array = pa.array(values, kind)
    if not isinstance(array, pa.Array):
        raise _Chunked
    return array


def to_batch(rows: Iterable[Mapping[str, Any]]) -> Any:
    """Records as one `pyarrow.RecordBatch` of `schema()`. Raises ValueError like `records.dumps`."""
    (batch,) = build(prepare(rows))
    return batch


def message(batch: Any, *, compression: str | None = None) -> bytes:
    """`batch` as one message of an IPC stream: what stands between the schema and `END_OF_STREAM`."""
    if compression is None:
        return bytes(batch.serialize())
    ipc, sink = pyarrow().ipc, pyarrow().BufferOutputStream()
    with ipc.new_stream(sink, batch.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_batch(batch)
    whole = sink.getvalue()
    return bytes(whole[batch.schema.serialize().size : whole.size - len(END_OF_STREAM)])


# ------------------------------------------------------------------------------------------------ columns to records


def version(found: Any) -> int | None:
    """Which `SCHEMA_VERSION` the schema `found` says that it is."""
    told = (found.metadata or {}).get(_VERSION.encode(), b"")
    return int(told) if told.isdigit() else None


def is_ours(found: Any) -> bool:
    """Whether a table of the schema `found` holds records as `to_batch` makes them, and not just anything.

    Other programs may drop columns, and what the schema says of itself.
    """
    names = set(found.names)
    needed = {"id", EXTRA} if version(found) else {"id", EXTRA, "provenance"}
    return (
        needed <= names <= {*records.FIELDS, EXTRA}
        and len(names) == len(found.names)
        and all(_alike(field.type, schema().field(field.name).type) for field in found)
    )


def _alike(found: Any, ours: Any) -> bool:
    """Whether Python sees the same in both types. Others may store texts as large_string, or leave keys out."""
    types = pyarrow().types
    if types.is_null(found):
        return True
    if types.is_struct(ours):
        known = {field.name: field.type for field in ours}
        return types.is_struct(found) and all(
            field.name in known and _alike(field.type, known[field.name]) for field in found
        )
    if types.is_list(ours):
        is_list = types.is_list(found) or types.is_large_list(found) or types.is_fixed_size_list(found)
        return is_list and _alike(found.value_type, ours.value_type)
    if types.is_string(ours):
        return bool(types.is_string(found) or types.is_large_string(found) or types.is_string_view(found))
    if types.is_integer(ours):
        return bool(types.is_signed_integer(found))
    return bool(found == ours or (types.is_floating(ours) and types.is_floating(found)))


def from_batch(batch: Any) -> list[dict[str, Any]]:
    """The records of a batch that `is_ours`, keys in the order in which `records.dumps` writes them.

    Raises ValueError where `extra` isn't the JSON of an object.
    """
    return list(map(with_extra, *_typed(batch)))


def typed(batch: Any) -> Iterator[tuple[dict[str, Any], str | None]]:
    """What the columns of `batch` say of each record, and its `extra` as it stands: `with_extra` joins them."""
    return zip(*_typed(batch), strict=True)


def with_extra(record: dict[str, Any], extra: str | None) -> dict[str, Any]:
    """`record` with what `extra` holds, a text of JSON. Raises ValueError where that isn't an object."""
    if not extra:
        return record
    more = records.loads(extra)
    if not isinstance(more, dict):
        raise records.Refused("extra is no object")
    merged = record | more
    ordered = {name: merged[name] for name in CODECS if name in merged}
    return ordered | {name: value for name, value in more.items() if name not in CODECS}


def _typed(batch: Any) -> tuple[list[dict[str, Any]], list[str | None]]:
    columns = {}
    extra: list[str | None] = [None] * batch.num_rows
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count == len(column):
            continue
        if name == EXTRA:
            extra = column.to_pylist()
        else:
            columns[name] = _values(column, CODECS[name].read, repeats=name in records.OF_STUDY)
    names = [name for name in CODECS if name in columns]
    rows = zip(*(columns[name] for name in names), strict=True) if names else [()] * batch.num_rows
    found = [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]
    return found, extra


def _values(column: Any, read: Callable[[Any], list[Any]], *, repeats: bool) -> list[Any]:
    """The values of `column`. Where it `repeats`, what equals the one above is the same object, and read once."""
    if not repeats:
        return read(column)
    if not pyarrow().types.is_nested(column.type):
        values = read(column)
        for number in range(1, len(values)):
            if values[number] == values[number - 1]:
                values[number] = values[number - 1]
        return values
    slices = [column.slice(number, 1) for number in range(len(column))]
    first = [number for number in range(len(slices)) if not number or not slices[number].equals(slices[number - 1])]
    once = read(column.take(pyarrow().array(first, pyarrow().int32())))
    ends = [*first[1:], len(slices)]
    return [value for value, start, end in zip(once, first, ends, strict=True) for _ in range(end - start)]
