"""XGBoost's trees outside a training: those it starts from, and model files put together anew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xgboost as xgb

from ray_apps.shards import dense

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from ray_apps.trainers import TrainJob

NO_CHILD = -1


class InitTrees:
    """The model that a training starts from: raw scores to start at, and trees to put before."""

    def __init__(self, job: TrainJob) -> None:
        assert job.init is not None
        self._booster = xgb.Booster(params={"nthread": job.threads}, model_file=job.init.path)
        self._booster.set_param({"nthread": job.threads})
        self._shift = job.shift
        self.rounds = int(self._booster.num_boosted_rounds())

    @property
    def objective(self) -> str:
        """What it was trained to do, by the library's name."""
        config = json.loads(self._booster.save_config())
        return str(config["learner"]["objective"]["name"])

    def margins(self, table: pa.Table) -> npt.NDArray[np.float32]:
        """Return the raw scores to start at: float32 [rows] or [rows, classes].

        Where the rows of train were evened out, those of the data evened out alike.
        """
        found = self._booster.inplace_predict(
            dense(table), predict_type="margin", missing=np.nan, validate_features=False
        )
        return (found - self._shift).astype(np.float32)  # type: ignore[no-any-return]

    def joined(self, model: bytes) -> bytes:
        """Return one model file of these trees and those that grew from their raw scores."""
        body, more = (as_json(one) for one in (self._booster, booster_of(model)))
        trees, new = (one["learner"]["gradient_booster"]["model"] for one in (body, more))
        count = len(trees["trees"])
        trees["trees"] += [{**tree, "id": count + tree["id"]} for tree in new["trees"]]
        trees["tree_info"] += new["tree_info"]
        trees["iteration_indptr"] += [count + end for end in new["iteration_indptr"][1:]]
        trees["gbtree_model_param"]["num_trees"] = str(len(trees["trees"]))
        body["learner"]["objective"] = more["learner"]["objective"]
        return as_ubj(body)


def shifted(model: bytes, shift: float) -> bytes:
    """Add to the raw score of a binary model: every leaf of its first tree is that much more.

    Not its base score, which the library keeps between 1e-6 and 1 - 1e-6.
    """
    if not shift:
        return model
    body = as_json(booster_of(model))
    first = body["learner"]["gradient_booster"]["model"]["trees"][0]
    first["split_conditions"] = [
        value + shift if child == NO_CHILD else value
        for child, value in zip(first["left_children"], first["split_conditions"], strict=True)
    ]
    return as_ubj(body)


def booster_of(model: bytes) -> xgb.Booster:
    """Return a model file's model."""
    return xgb.Booster(model_file=bytearray(model))


def as_json(booster: xgb.Booster) -> Any:
    """Return a model as what its JSON file says; every float comes back as it was."""
    return json.loads(booster.save_raw("json"))


def as_ubj(body: Any) -> bytes:
    """Return the model file of what a JSON file says."""
    return bytes(booster_of(json.dumps(body).encode()).save_raw("ubj"))
