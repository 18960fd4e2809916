from __future__ import annotations

import pytest

from arclight.leak import leak_told
from arclight.pages.model_page import model_page
from tests.arclight.made_records import make_bundle


@pytest.mark.parametrize(
    ("metric", "valid", "importance", "is_told"),
    [
        ("auc", 1.0, (0.0, 0.01, 0.99), True),
        ("log_loss", 0.001, (0.0, 0.0, 1.0), True),
        ("r2", 0.9999, (0.0, 0.0, 1.0), True),
        ("auc", 0.98, (0.0, 0.01, 0.99), False),
        ("log_loss", 0.3, (0.0, 0.0, 1.0), False),
        ("auc", 1.0, (0.3, 0.3, 0.4), False),
        ("rmse", 1.0, (0.0, 0.0, 1.0), False),
        ("auc", 1.0, (), False),
    ],
)
def test_a_feature_that_alone_tells_nearly_every_label_is_named(
    metric: str, valid: float, importance: tuple[float, ...], is_told: bool
) -> None:
    """A threshold of a number, such as a rating beside `rating >= 4`, is no line to follow."""
    update = {"metric": metric, "train_metrics": {"train": valid, "valid": valid}}
    bundle = make_bundle().model_copy(update={**update, "importance": importance})
    assert leak_told(bundle).startswith("'d' alone tells nearly every label") == is_told
    assert ("name it in etl.drop" in model_page(bundle)) == is_told
