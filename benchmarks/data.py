"""Seeded tables for the races: the same seed and size give the same rows on any machine."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    Table = Callable[[np.random.Generator, int, int], pa.Table]

SEED = 20_131_101
FILES = 8
STORES, PRODUCTS, CUSTOMERS = 500, 20_000, 200_000
FIRST_MICROS = 1_672_531_200_000_000  # 2023-01-01
YEAR_MICROS = 365 * 86_400_000_000
FIT_NUMBERS = tuple(f"x{i}" for i in range(30))
FIT_CATEGORIES = tuple(f"c{i}" for i in range(10))
FIT_LEVELS = (4, 7, 12, 25, 50, 100, 250, 500, 1000, 3000)
INGEST_NUMBERS = tuple(f"x{i}" for i in range(20))
INGEST_CATEGORIES = tuple(f"c{i}" for i in range(5))
INGEST_LEVELS = (5, 10, 20, 50, 100)


def star_schema(folder: Path, rows: int) -> None:
    """Write a fact table `sales` and the tables `stores`, `products` and `customers`.

    Among the sales are a few repeated keys, labels that are null, and rows that break a rule.
    """
    _write(folder / "sales", rows, FILES, _sales)
    _write(folder / "stores", STORES, 1, _stores)
    _write(folder / "products", PRODUCTS, 1, _products)
    _write(folder / "customers", CUSTOMERS, 1, _customers)


def wide_table(folder: Path, rows: int) -> None:
    """Write 30 numbers of several shapes and 10 categories, 2% null each, and a label."""
    _write(folder / "wide", rows, FILES, _wide)


def training_table(folder: Path, rows: int) -> None:
    """Write a key, 20 numbers, 5 categories and a binary label that depends on some of them."""
    _write(folder / "training", rows, FILES, _training)


def prepared(folder: Path, make: Callable[[Path, int], None], rows: int) -> Path:
    """Return the folder of a generated table set, made now or by an earlier run."""
    target = folder / f"{make.__name__}-{rows}-{SEED}"
    if not target.is_dir():
        staged = target.with_name(f".{target.name}-{os.getpid()}")
        staged.mkdir(parents=True)
        make(staged, rows)
        staged.rename(target)
    return target


def content_digest(folder: Path) -> str:
    """Return SHA-256 over the names and bytes of a folder's Parquet files."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.parquet")):
        digest.update(f"{file.relative_to(folder)}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _write(folder: Path, rows: int, files: int, table: Table) -> None:
    folder.mkdir()
    edges = np.linspace(0, rows, files + 1).astype(int)
    for index in range(files):
        first, last = int(edges[index]), int(edges[index + 1])
        # one stream a file, so that no file depends on another's size
        draw = np.random.default_rng([SEED, index, len(folder.name)])
        made = table(draw, first, last - first)
        pq.write_table(made, folder / f"part-{index:05d}.parquet", row_group_size=128 << 10)


# --------------------------------------------------------------------------------- star schema


def _sales(draw: np.random.Generator, first: int, rows: int) -> pa.Table:
    ticket = np.arange(first, first + rows)
    repeated = draw.random(rows) < 0.0002
    repeated[0] = False
    ticket[repeated] = ticket[np.flatnonzero(repeated) - 1]
    store = (ticket * 2_654_435_761 % STORES).astype(np.int32)
    product = draw.integers(0, PRODUCTS, rows, dtype=np.int32)
    quantity = draw.integers(1, 9, rows, dtype=np.int32)
    price = np.round(draw.lognormal(3, 0.8, rows), 2)
    discount = np.round(price * draw.beta(1, 6, rows), 2)
    minutes = draw.gamma(2, 4, rows)
    risk = -2 + 0.08 * (quantity - 4) + 3 * discount / (price + 1) + 0.02 * minutes
    late = draw.random(rows) < 1 / (1 + np.exp(-risk - 0.4 * (product % 7 == 0)))
    quantity[draw.random(rows) < 0.001] = 0
    return pa.table(
        {
            "store_id": store,
            "ticket": ticket,
            "sold_at": pa.array(
                FIRST_MICROS + draw.integers(0, YEAR_MICROS, rows), pa.timestamp("us", tz="UTC")
            ),
            "product_id": product,
            "customer_id": draw.integers(0, CUSTOMERS, rows),
            "channel": _levels(draw, rows, "channel", 5),
            "payment": _levels(draw, rows, "payment", 6),
            "coupon": _levels(draw, rows, "coupon", 40, nulls=0.7),
            "quantity": quantity,
            "unit_price": price,
            "discount": _holes(draw, discount, 0.03),
            "shipping": np.round(draw.gamma(2, 3, rows), 2),
            "weight": _holes(draw, draw.lognormal(0, 1, rows), 0.02),
            "clicks": draw.poisson(12, rows).astype(np.int32),
            "minutes": minutes,
            "basket": draw.integers(1, 30, rows, dtype=np.int32),
            "returned": pa.array(late, mask=draw.random(rows) < 0.0005),
        }
    )


def _stores(draw: np.random.Generator, _: int, rows: int) -> pa.Table:
    return pa.table(
        {
            "store_id": np.arange(rows, dtype=np.int32),
            "region": _levels(draw, rows, "region", 12),
            "city": _levels(draw, rows, "city", 100),
            "area_m2": draw.normal(900, 250, rows),
            "opened_year": draw.integers(1980, 2022, rows, dtype=np.int32),
            "staff": draw.integers(3, 60, rows, dtype=np.int32),
        }
    )


def _products(draw: np.random.Generator, _: int, rows: int) -> pa.Table:
    return pa.table(
        {
            "product_id": np.arange(rows, dtype=np.int32),
            "category": _levels(draw, rows, "category", 30),
            "brand": _levels(draw, rows, "brand", 200),
            "list_price": np.round(draw.lognormal(3, 0.8, rows), 2),
            "package_kg": draw.lognormal(0, 1, rows),
            "rating": _holes(draw, draw.normal(3.8, 0.7, rows), 0.1),
        }
    )


def _customers(draw: np.random.Generator, _: int, rows: int) -> pa.Table:
    return pa.table(
        {
            "customer_id": np.arange(rows),
            "segment": _levels(draw, rows, "segment", 8),
            "age": draw.integers(18, 90, rows, dtype=np.int32),
            "tenure_days": draw.integers(0, 4000, rows, dtype=np.int32),
            "orders_before": draw.poisson(9, rows).astype(np.int32),
            "spend_before": np.round(draw.gamma(2, 200, rows), 2),
        }
    )


# --------------------------------------------------------------------------------- wide, training


def _wide(draw: np.random.Generator, _: int, rows: int) -> pa.Table:
    shapes: tuple[Callable[[], npt.NDArray[np.float64]], ...] = (
        lambda: draw.normal(0, 1, rows),
        lambda: draw.lognormal(1, 1, rows),
        lambda: draw.random(rows),
        lambda: draw.poisson(20, rows).astype(np.float64),
        lambda: np.where(draw.random(rows) < 0.6, 0.0, draw.gamma(2, 3, rows)),
    )
    columns: dict[str, pa.Array] = {}
    for place, name in enumerate(FIT_NUMBERS):
        columns[name] = _holes(draw, shapes[place % len(shapes)](), 0.02, pa.float32())
    for name, count in zip(FIT_CATEGORIES, FIT_LEVELS, strict=True):
        columns[name] = _levels(draw, rows, name, count, nulls=0.02)
    columns["y"] = pa.array((draw.random(rows) < 0.3).astype(np.float64))
    return pa.table(columns)


def _training(draw: np.random.Generator, first: int, rows: int) -> pa.Table:
    x = draw.normal(0, 1, (len(INGEST_NUMBERS), rows)).astype(np.float32)
    codes = [draw.integers(0, count, rows) for count in INGEST_LEVELS]
    score = x[0] - 0.7 * x[1] + 0.5 * x[2] * x[3] + 0.4 * np.abs(x[4]) + 0.3 * np.sin(3 * x[5])
    for code, count in zip(codes, INGEST_LEVELS, strict=True):
        score = score + 0.5 * np.sin(code * 12.9898 + count)
    label = draw.random(rows) < 1 / (1 + np.exp(-score))
    columns = {"id": pa.array(np.arange(first, first + rows))}
    columns |= {n: _holes(draw, x[i], 0.01, pa.float32()) for i, n in enumerate(INGEST_NUMBERS)}
    for name, code, count in zip(INGEST_CATEGORIES, codes, INGEST_LEVELS, strict=True):
        names = pa.array([f"{name}-{i:03d}" for i in range(count)])
        columns[name] = pa.DictionaryArray.from_arrays(code.astype(np.int32), names).cast("string")
    columns["y"] = pa.array(label.astype(np.float64))
    return pa.table(columns)


def _levels(
    draw: np.random.Generator, rows: int, name: str, count: int, *, nulls: float = 0.0
) -> pa.Array:
    """Return text with a skewed choice among `count` levels."""
    weights = 1 / (np.arange(count) + 5.0)
    codes = draw.choice(count, rows, p=weights / weights.sum()).astype(np.int32)
    indices = pa.array(codes, mask=draw.random(rows) < nulls if nulls else None)
    levels = pa.array([f"{name}-{i:04d}" for i in range(count)])
    return pa.DictionaryArray.from_arrays(indices, levels).cast(pa.string())


def _holes(
    draw: np.random.Generator,
    values: npt.NDArray[np.floating],
    share: float,
    kind: pa.DataType | None = None,
) -> pa.Array:
    """Return numbers with a share of them null."""
    return pa.array(values, kind, mask=draw.random(len(values)) < share, from_pandas=False)
