"""Tables that are damaged, hostile or extreme: the ETL says so in a sentence, or loses nothing."""

from __future__ import annotations

import os
import pickle
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arclight.errors import ArclightError, DataError, IntegrityError, RefusedError, SchemaError
from arclight.progress import silent
from arclight.spec_file import load_spec
from spark import etl
from spark.arrange import arrange
from spark.columns import check_columns
from spark.etl import joined_rows
from spark.etl_plan import EtlPlan, plan_etl
from spark.publish import make_manifest
from spark.rowfiles import write_rows
from spark.rowpass import PartFiles, RowPass
from spark.taskresult import add_up
from tests.full_disk import small_disk
from tests.spark.etl_case import make_case, rows
from tests.spark.etl_process import answers, etl_process

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession

    from tests.spark.etl_case import Case

LARGEST = 2**63 - 1
WIDE = pa.array([Decimal(9) * 10**37] * 300, pa.decimal128(38, 0))


@pytest.mark.spark
@pytest.mark.parametrize("codec", ["none", "snappy"])
def test_a_flipped_byte_in_a_data_page_names_the_file(
    session: SparkSession, tmp_path: Path, codec: str
) -> None:
    case = make_case(tmp_path, rows(1000))
    path = tmp_path / "t" / "part-1.parquet"
    other = rows(1000, id=pa.array(range(1000, 2000)))
    pq.write_table(other, path, compression=codec, write_page_checksum=True)
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(0)
    data[column.dictionary_page_offset + column.total_compressed_size - 5] ^= 0x10
    path.write_bytes(data)
    pq.read_metadata(path)  # the footer is whole: only the page's checksum can tell
    with pytest.raises(DataError, match=r"part-1\.parquet' cannot be read") as caught:
        case.build(session)
    assert caught.value.exit_status == 1
    assert what_is_stored(case) == ([], [])


@pytest.mark.spark
@pytest.mark.parametrize(
    ("other", "said"),
    [(pa.string(), "int32 against string"), (pa.float64(), "int32 against double")],
)
def test_a_column_of_another_type_in_the_next_file_names_both(
    session: SparkSession, tmp_path: Path, other: pa.DataType, said: str
) -> None:
    case = make_case(tmp_path, rows(100))
    case.write("t", rows(100, n=pa.array(range(100)).cast(other)), file="part-1.parquet")
    with pytest.raises(SchemaError, match=rf"'n', {said} .*part-0.*part-1") as caught:
        case.build(session)
    assert caught.value.exit_status == 3


@pytest.mark.spark
def test_columns_of_any_name_keep_their_values(session: SparkSession, tmp_path: Path) -> None:
    names = ["a.b", "a`b", "`", ".", 'a"b', "a'b", "a\nb", "a\x1b[31mb", "a\0b", " a ", "x" * 9999]
    table = rows(300)
    for place, name in enumerate(names):
        table = table.append_column(name, pa.array([i * 100 + place for i in range(300)]))
    case = make_case(tmp_path, table)
    manifest = case.build(session)
    stored = case.splits(manifest).to_pydict()
    for place, name in enumerate(names):
        assert stored[name] == [i * 100 + place for i in stored["id"]], name
    assert set(names) <= set(manifest.plan.names)
    keyed = make_case(tmp_path, key=["a.b", "a`b"], checks=[{"name": "low", "expect": "id < 290"}])
    assert keyed.build(session).rows["quarantine"] == 10
    plan = plan_etl(load_spec(case.spec_file()))
    table, schema = joined_rows(session, plan, case.catalog)
    out = tmp_path / ("rows" * 60)
    assert write_rows(table, schema, out, plan=plan, where="id < 100", tick=silent) == 100
    written = pq.read_table(out).to_pydict()
    assert all(
        written[name] == [i * 100 + n for i in written["id"]] for n, name in enumerate(names)
    )


@pytest.mark.spark
def test_a_text_of_ten_megabytes_is_stored_whole(session: SparkSession, tmp_path: Path) -> None:
    huge = "é" * 5_000_000
    case = make_case(tmp_path, rows(300, c=pa.array([huge, *["a"] * 299])))
    stored = case.splits(case.build(session))
    assert [huge] == [v for v in stored["c"].to_pylist() if v != "a"]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("column", "said"),
    [
        ("d * d", "NUMERIC_VALUE_OUT_OF_RANGE"),
        ("cast(d AS decimal(10, 0))", "NUMERIC_VALUE_OUT_OF_RANGE"),
        ("b + 1", "ARITHMETIC_OVERFLOW"),
        ("(SELECT sum(b) FROM t)", "ARITHMETIC_OVERFLOW"),
        ("(SELECT sum(d) FROM t)", "ARITHMETIC_OVERFLOW"),
    ],
)
def test_a_number_too_large_for_its_type_is_no_silent_null(
    session: SparkSession, tmp_path: Path, column: str, said: str
) -> None:
    table = rows(300).append_column("d", WIDE).append_column("b", pa.array([LARGEST] * 300))
    case = make_case(tmp_path, table, sql=f"SELECT *, {column} AS wrong FROM t")
    with pytest.raises(DataError, match=said) as caught:
        case.build(session)
    assert "to bypass" not in caught.value.message
    assert what_is_stored(case) == ([], [])


@pytest.mark.spark
def test_the_largest_whole_numbers_stay_apart_as_keys(
    session: SparkSession, tmp_path: Path
) -> None:
    ids = [*(LARGEST - i for i in range(150)), *(-LARGEST - 1 + i for i in range(150))]
    case = make_case(tmp_path, rows(300, id=pa.array(ids)).append_column("d", WIDE))
    stored = case.splits(case.build(session))
    assert sorted(stored["id"].to_pylist()) == sorted(ids)
    assert stored["d"].null_count == 0


@pytest.mark.spark
@pytest.mark.timeout(60)
def test_a_join_on_a_key_that_holds_nearly_all_rows(session: SparkSession, tmp_path: Path) -> None:
    count = 100_000
    cold = [f"c{i}" for i in range(count // 100)]
    hot = ["hot" if i % 100 else cold[i // 100] for i in range(count)]
    case = make_case(tmp_path, rows(count, c=pa.array(hot)))
    case.write("u", pa.table({"c": ["hot", *cold], "w": [-1.0, *map(float, range(len(cold)))]}))
    case.body["sources"]["u"] = {"path": "u"}
    case.body["etl"]["sql"] = "SELECT t.*, u.w FROM t LEFT JOIN u USING (c)"
    stored = case.splits(case.build(session))
    assert sorted(stored["id"].to_pylist()) == list(range(count))
    pairs = zip(stored["c"].to_pylist(), stored["w"].to_pylist(), strict=True)
    assert all(w == (-1.0 if c == "hot" else float(c[1:])) for c, w in pairs)


@pytest.mark.spark
def test_a_split_without_rows_is_named(session: SparkSession, tmp_path: Path) -> None:
    at = pa.array(np.arange(300) * 3_600_000_000, pa.timestamp("us"))
    split = {"by": "time", "valid_from": "1970-01-05", "test_from": "1999-01-01"}
    case = make_case(tmp_path, rows(300, at=at), time="at", split=split)
    with pytest.raises(RefusedError, match=r"test has none \(train 96, valid 204, test 0;"):
        case.build(session)
    assert what_is_stored(case) == ([], [])


@pytest.mark.spark
@pytest.mark.fault
@pytest.mark.timeout(300)
def test_a_category_of_a_million_levels(tmp_path: Path) -> None:
    count = 1_000_000
    ids = np.arange(count)
    table = pa.table({"id": ids, "c": [f"level-{i}" for i in ids], "y": (ids * 7919) % 10 < 4})
    case = make_case(tmp_path, table)
    case.body["features"] = {"max_levels": 100, "min_count": 1}
    with etl_process(case, tmp_path / "store") as process:
        answers([process])
    manifest = case.catalog.dataset("case")
    stored = case.splits(manifest)
    assert len(set(stored["c"].to_pylist())) == count
    assert [len(f.levels) for f in manifest.plan.features] == [100]
    assert manifest.warnings[0].endswith("it is more an identifier than a category")


# rows that go missing between the steps


@pytest.mark.spark
def test_a_row_lost_before_the_pass_is_not_published(
    session: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(table: DataFrame, *more: object) -> DataFrame:
        return arrange(table, *more).where("id <> 7")  # type: ignore[arg-type]

    monkeypatch.setattr(etl, "arrange", lose)
    case = make_case(tmp_path, rows(300))
    with pytest.raises(IntegrityError, match=r"must see the 300 rows .* but saw 299; nothing was"):
        case.build(session)
    assert what_is_stored(case) == ([], [])


LOSSES = {
    "a split loses a row": ("add", "stage 'write' must account .* 1 of 240 are in no account"),
    "the quarantine loses a row": ("quarantine", "the quarantine must hold 60 rows, but holds 59"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_row_lost_inside_the_pass_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    name, said = LOSSES[case]
    real = getattr(PartFiles, name)

    def lose(self: PartFiles, batch: pa.RecordBatch, second: object, *more: object) -> None:
        if name == "add":
            label, codes = more
            codes = np.where(np.arange(batch.num_rows) == np.argmax(codes >= 0), -1, codes)
            real(self, batch, second, label, codes)
        else:
            bad = np.array(second)
            bad[np.argmax(bad)] = False
            real(self, batch, bad, *more)

    monkeypatch.setattr(PartFiles, name, lose)
    made = make_case(tmp_path, rows(300), checks=[{"name": "n", "expect": "n > 0"}])
    loaded = load_spec(made.spec_file())
    (batch,) = rows(300).combine_chunks().to_batches()
    layout = check_columns(batch.schema, loaded)
    result = RowPass(loaded.spec, layout, str(tmp_path / "staged")).run(0, [batch])
    plan = EtlPlan(loaded=loaded, files={}, key="k")
    with pytest.raises(IntegrityError, match=said):
        make_manifest(plan, layout, add_up([result]), [], 300, "datasets/case/data/0")


# files that would run code in a reader which trusts them


class _Touch:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self._path}'",)


@pytest.mark.spark
@pytest.mark.parametrize(
    "name",
    ["ray.data.arrow_tensor", "ray.data.arrow_pickled_object", "arrow.py_extension_type"],
)
def test_the_code_in_a_column_s_metadata_is_not_run(
    session: SparkSession, tmp_path: Path, name: str
) -> None:
    canary = tmp_path / "canary"
    code = pickle.dumps(_Touch(canary))
    about = {b"ARROW:extension:name": name.encode(), b"ARROW:extension:metadata": code}
    columns = {
        "nested": pa.array([[1.0, 2.0]] * 300),
        "bytes": pa.array([code] * 300),
        "plain": pa.array([float(i) for i in range(300)]),
    }
    for kind, values in columns.items():
        table = rows(300)
        field = pa.field("v", values.type, metadata=about)
        table = pa.Table.from_arrays([*table.columns, values], schema=table.schema.append(field))
        (tmp_path / kind).mkdir()
        case = make_case(tmp_path / kind, table)
        if kind == "plain":  # without its metadata it is a column of numbers
            stored = case.splits(case.build(session))
            assert stored["v"].to_pylist() == [float(i) for i in stored["id"].to_pylist()]
        else:
            with pytest.raises(ArclightError, match=r"column 'v' is .* etl\.drop"):
                case.build(session)
    assert not canary.exists()
    pickle.loads(code)
    assert canary.exists()


# a full disk


@pytest.mark.spark
def test_a_full_disk_leaves_the_old_version_and_the_same_command_goes_on(
    session: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "case").mkdir()
    case = make_case(tmp_path / "case", rows(300))
    with small_disk(tmp_path / "disk", size="3m") as disk:
        (tmp_path / "case" / "store").symlink_to(disk.folder)
        first = case.build(session)
        before = what_is_stored(case)
        noise = np.random.default_rng(1).normal(size=300_000)
        case.write("t", rows(300_000, x=pa.array(noise)))
        with pytest.raises(ArclightError, match=r"the disk has no room .*free space") as caught:
            case.build(session)
        assert caught.value.exit_status == 1
        assert what_is_stored(case) == before
        assert disk.used_bytes < 1 << 20
        assert case.read(first, "train").num_rows == first.rows["train"]
        disk.resize("64m")
        second = case.build(session)
        assert second.number == 2
        assert sorted(case.splits(second)["id"].to_pylist()) == list(range(300_000))


def what_is_stored(case: Case) -> tuple[list[str], list[str]]:
    """The versions of the case's dataset, and the folders of their files."""
    shelf = case.folder / "store" / "datasets" / "case"
    found = [shelf / "versions", shelf / "data"]
    versions, data = (sorted(p.name for p in f.glob("*")) if f.is_dir() else [] for f in found)
    return versions, data
