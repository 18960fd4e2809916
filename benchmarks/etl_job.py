"""What the `etl` race asks for, said once for all sides: the join, the rules, the features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("sales", "stores", "products", "customers")
SQL = """
SELECT s.*, t.region, t.city, t.area_m2, t.opened_year, t.staff,
       p.category, p.brand, p.list_price, p.package_kg, p.rating,
       c.segment, c.age, c.tenure_days, c.orders_before, c.spend_before
FROM sales s
LEFT JOIN stores t USING (store_id)
LEFT JOIN products p USING (product_id)
LEFT JOIN customers c USING (customer_id)
"""
KEY = ("store_id", "ticket")
TIME = "sold_at"
LABEL = "returned"
DROP = ("product_id", "customer_id")
VALID_FROM, TEST_FROM = "2023-10-20", "2023-11-26"
RULES = {
    "quantity_is_positive": "quantity > 0",
    "price_is_positive": "unit_price > 0",
    "discount_below_price": "coalesce(discount, 0) <= unit_price",
}
CATEGORIES = (
    "channel", "payment", "coupon", "region", "city", "category", "brand", "segment",
)  # fmt: skip
PLAIN_NUMBERS = (
    "quantity", "unit_price", "discount", "shipping", "weight", "clicks", "minutes", "basket",
    "area_m2", "opened_year", "staff", "list_price", "package_kg", "rating", "age",
    "tenure_days", "orders_before", "spend_before",
)  # fmt: skip
DERIVED = {
    "sold_hour": "hour(sold_at)",
    "sold_weekday": "weekday(sold_at)",
    "total": "quantity * unit_price",
    "discount_share": "discount / (unit_price + 1)",
    "price_gap": "unit_price - list_price",
    "spend_per_order": "spend_before / (orders_before + 1)",
}
NUMBERS = (*PLAIN_NUMBERS, *DERIVED)
SPLITS = ("train", "valid", "test")
MAX_LEVELS, MIN_COUNT = 1000, 20


def spec_body(data: Path) -> dict[str, Any]:
    """Return the job as an Arclight spec over the tables in a folder."""
    return {
        "name": "race",
        "task": "binary",
        "sources": {name: {"path": str(data / name)} for name in TABLES},
        "etl": {
            "sql": SQL,
            "key": list(KEY),
            "label": LABEL,
            "time": TIME,
            "drop": list(DROP),
            "checks": [{"name": n, "expect": e, "else": "quarantine"} for n, e in RULES.items()],
            "split": {"by": "time", "valid_from": VALID_FROM, "test_from": TEST_FROM},
        },
        "features": {"derive": DERIVED, "max_levels": MAX_LEVELS, "min_count": MIN_COUNT},
    }


def output_facts(splits: dict[str, list[str]], quarantine_rows: int) -> dict[str, Any]:
    """Return rows, and the sum of each number and of its size, of every split's files."""
    facts: dict[str, Any] = {"rows": {"quarantine": quarantine_rows}, "sums": {}}
    for split, files in splits.items():
        table = pq.read_table(files, columns=[*NUMBERS, LABEL], partitioning=None)
        facts["rows"][split] = table.num_rows
        for name in (*NUMBERS, LABEL):
            column = table.column(name).cast("float64")
            total, size = pc.sum(column).as_py() or 0.0, pc.sum(pc.abs(column)).as_py() or 0.0
            facts["sums"][f"{split}.{name}"] = [total, size, column.null_count]
    return facts
