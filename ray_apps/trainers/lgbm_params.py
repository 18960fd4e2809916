"""What LightGBM may be told: a spec's parameters, judged by the library, and ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
from lightgbm.basic import _ConfigAliases

from arclight.bundle import WEIGHING
from arclight.errors import SpecError, nearest, printable
from ray_apps.gang import Alone
from ray_apps.trainers.by_feature import PLACES, bare, check_by_feature, features_told
from ray_apps.trainers.imbalance import refuse_weights

if TYPE_CHECKING:
    from ray_apps.gang import Gang
    from ray_apps.trainers import TrainJob

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "binary": ("binary",),
    "multiclass": ("multiclass",),
    "regression": (
        "regression", "regression_l1", "huber", "fair", "poisson", "mape", "gamma", "tweedie",
        "quantile",
    ),
}  # fmt: skip
OBJECTIVE_ALIASES = {
    **dict.fromkeys(
        ("regression_l2", "l2", "mean_squared_error", "mse", "l2_root", "root_mean_squared_error",
         "rmse"),
        "regression",
    ),
    **dict.fromkeys(("l1", "mean_absolute_error", "mae"), "regression_l1"),
    "mean_absolute_percentage_error": "mape",
    "softmax": "multiclass",
}  # fmt: skip
"""The library's other names for objectives."""
BOOSTINGS = ("gbdt",)
METHODS = ("basic", "intermediate", "advanced")
"""Of monotone constraints; what the library does not know is the first one to it."""
BAG_SHARES = ("bagging_fraction", "pos_bagging_fraction", "neg_bagging_fraction")
PROBED_SHARE = 0.5
"""Of the few rows of a probe; a smaller one that is right for many rows leaves none of them."""
ALONE_ONLY = {"linear_tree": False, "monotone_constraints_method": "basic", PLACES: None}
"""What its data-parallel learner has not, by the value that it has; of the last it dies."""
# What a spec may set, by the library's main names: nothing that names a file, a host or a
# column, and nothing that Arclight sets. Everything else in the library's own list is reserved.
ALLOWED = frozenset(
    {
        "objective", "boosting", "data_sample_strategy", "learning_rate", "num_leaves",
        "max_depth", "min_data_in_leaf", "min_sum_hessian_in_leaf", "bagging_fraction",
        "pos_bagging_fraction", "neg_bagging_fraction", "bagging_freq", "bagging_seed",
        "feature_fraction", "feature_fraction_bynode", "feature_fraction_seed", "extra_trees",
        "extra_seed", "max_delta_step", "lambda_l1", "lambda_l2", "linear_lambda",
        "min_gain_to_split", "top_rate", "other_rate", "min_data_per_group",
        "max_cat_threshold", "cat_l2", "cat_smooth", "max_cat_to_onehot",
        "monotone_constraints", "monotone_constraints_method", "monotone_penalty",
        "path_smooth", "interaction_constraints", "linear_tree", "max_bin", "min_data_in_bin",
        "bin_construct_sample_cnt", "data_random_seed", "enable_bundle", "use_missing",
        "zero_as_missing", "is_unbalance", "scale_pos_weight", "sigmoid", "boost_from_average",
        "reg_sqrt", "alpha", "fair_c", "poisson_max_delta_step", "tweedie_variance_power",
        "use_quantized_grad", "num_grad_quant_bins", "quant_train_renew_leaf",
        "stochastic_rounding", "histogram_pool_size", "feature_contri",
        "cegb_tradeoff", "cegb_penalty_split",
    }
)  # fmt: skip
_CHECK = re.compile(r"Check failed: \((?P<name>\w+)\) (?P<rule>\S+) \((?P<limit>[^)]*)\)")
_PLACE = re.compile(r" at /\S+, line \d+ \.$")


def params_of(job: TrainJob, gang: Gang) -> dict[str, Any]:
    """Return the library's parameters by their main names: the user's, then ours."""
    aliases = _main_names()
    # not bundled: rows counted row by row are as fast, and bins then say all that features say
    params: dict[str, Any] = {"objective": OBJECTIVES[job.task][0], "enable_bundle": False}
    params |= {aliases[name]: value for name, value in job.params.items()}
    params |= bare(params)
    params["objective"] = OBJECTIVE_ALIASES.get(params["objective"], params["objective"])
    # By rows it makes a copy of the bins for every booster, which trials may not win back
    # (`lgbm_layout`). The trees are the same; but quantized gradients it adds up wrongly by rows
    # where trees leave features out.
    is_wrong_by_rows = "use_quantized_grad" in params and "feature_fraction" in params
    params |= {
        "num_threads": job.threads,
        "seed": job.seed,
        "deterministic": True,
        "force_col_wise" if job.is_trial or is_wrong_by_rows else "force_row_wise": True,
        "feature_pre_filter": False,
        "verbosity": -1,
    }
    if job.task == "multiclass":
        params["num_class"] = job.classes
    if gang.world > 1:
        params |= {"tree_learner": "data", "num_machines": gang.world, "pre_partition": True}
    return params


def check_names(job: TrainJob) -> None:
    """Refuse names that the library has not, that Arclight sets, or that stand twice.

    Raises:
        SpecError: the first one, with what it might have been.
    """
    known = _main_names()
    seen: dict[str, str] = {}
    for name in job.params:
        main = known.get(name)
        if main is None:
            raise SpecError(
                f"train.params: LightGBM has no '{printable(name)}'.{nearest(name, known)}"
            )
        if main not in ALLOWED:
            raise SpecError(
                f"train.params: '{name}' must not be set: Arclight sets it, or it names files, "
                "hosts or columns."
            )
        if main in seen:
            raise SpecError(f"train.params: '{name}' and '{seen[main]}' are the same; keep one.")
        seen[main] = name
        _check_value(name, main, job)

    by_main_name = {main: job.params[name] for main, name in seen.items()}
    refuse_weights(by_main_name, job)
    check_by_feature(by_main_name, job)


def check_init(job: TrainJob, objective: str) -> None:
    """Refuse an objective other than that of the model a training starts from.

    Raises:
        SpecError: it is another, or has other settings.
    """
    assert job.init is not None
    theirs = _objective(lgb.Booster(model_file=job.init.path))
    if theirs != objective:
        raise SpecError(
            f"train.params: the objective must be '{theirs}', that of the model in train.init, "
            f"got '{objective}'; set it so."
        )


def probe(job: TrainJob) -> str:
    """Train one round on a few rows, so that LightGBM refuses a bad value now.

    Returns:
        The objective and its settings, as a model file names them.

    Raises:
        SpecError: it does refuse one.
    """
    classes = max(job.classes, 2)
    column = np.arange(40 * classes, dtype=np.float32).reshape(-1, 1)
    labels = np.arange(40 * classes) % classes if job.task != "regression" else column[:, 0] + 1
    params = params_of(job, Alone())  # its threads are a setting of the whole process
    features = np.repeat(column, job.features or features_told(params), axis=1)
    try:
        for name in BAG_SHARES:
            if 0 < float(params.get(name, 1)) < PROBED_SHARE:
                params[name] = PROBED_SHARE
        booster = lgb.train(params, lgb.Dataset(features, label=labels, params=params), 1)
    except (lgb.basic.LightGBMError, TypeError, ValueError) as error:
        raise SpecError(f"train.params: LightGBM refuses them: {said(error)}") from error
    _refuse_ignored(params, booster)
    return _objective(booster)


def said(error: Exception) -> str:
    """Return what the library says without the place in its own source."""
    text = str(error).strip()
    if found := _CHECK.match(text):
        return f"{found['name']} must be {found['rule']} {found['limit']}"
    return printable(_PLACE.sub("", text))


# --------------------------------------------------------------------------------- inside


def _main_names() -> dict[str, str]:
    """Return every parameter name the library knows and the main name it stands for."""
    table = _ConfigAliases._get_all_param_aliases()
    return {alias: name for name, aliases in table.items() for alias in (name, *aliases)}


def _check_value(name: str, main: str, job: TrainJob) -> None:
    """Refuse a value that the library would not keep to for such a task, or so many workers.

    Args:
        name: as the user calls the parameter.
        main: as the library does.
        job: what to fit.

    Raises:
        SpecError: with what it may be.
    """
    value = job.params[name]
    plain = ALONE_ONLY.get(main, value)
    if job.workers > 1 and value != plain:
        rule = "not be set" if plain is None else f"be {plain}"
        raise SpecError(
            f"train.params: {name} must {rule} for several workers, got {printable(value)}: "
            "LightGBM leaves it out without a word, or fails; use train.workers: 1."
        )
    if job.task != "binary" and value != WEIGHING.get(main, value):
        raise SpecError(
            f"train.params: {name} must not be set for a {job.task} task: LightGBM weighs the "
            "classes of a binary one alone; leave it out."
        )
    if main == "boosting" and value not in BOOSTINGS:
        goss = " Set data_sample_strategy: goss for that." if value == "goss" else ""
        raise SpecError(
            f"train.params: {name} must be {' or '.join(BOOSTINGS)}, the one that is stored "
            f"and served, got '{printable(value)}'.{goss}"
        )
    allowed = OBJECTIVES[job.task] if main == "objective" else None
    if allowed is not None and OBJECTIVE_ALIASES.get(str(value), value) not in allowed:
        raise SpecError(
            f"train.params: {name} '{printable(value)}' must be one of {', '.join(allowed)} "
            f"for a {job.task} task.{nearest(str(value), allowed)}"
        )


def _refuse_ignored(params: dict[str, Any], booster: lgb.Booster) -> None:
    """Refuse what LightGBM leaves out without a word, or learns nothing with.

    Raises:
        SpecError: the first one, by what the library made of the parameters.
    """
    lines = booster.model_to_string(num_iteration=1).splitlines()
    pairs = (line[1:-1].split(": ", 1) for line in lines if line.startswith("[") and ": " in line)
    used = dict(pairs)
    share = next((name for name in BAG_SHARES if float(used[name]) < 1), None)
    if share is not None and int(used["bagging_freq"]) < 1:
        raise SpecError(
            f"train.params: {share} below 1 must have bagging_freq beside it, without which "
            f"LightGBM takes all rows; set bagging_freq: 1, or leave {share} out."
        )
    by_class = next((name for name in BAG_SHARES[1:] if float(used[name]) < 1), None)
    if by_class is not None and float(used["bagging_fraction"]) < 1:
        raise SpecError(
            f"train.params: bagging_fraction must not be below 1 beside {by_class}, with which "
            "LightGBM draws rows by their class alone; leave one of them out."
        )
    if by_class is not None and str(params.get("data_sample_strategy")).lower() == "goss":
        raise SpecError(
            f"train.params: {by_class} must not be below 1 beside goss, with which LightGBM draws "
            "rows by their gradients alone; leave one of them out."
        )
    name = "monotone_constraints_method"
    method = params.get(name, used[name])
    if method not in METHODS:
        raise SpecError(
            f"train.params: {name} must be one of {', '.join(METHODS)}, got "
            f"'{printable(method)}'.{nearest(str(method), METHODS)}"
        )
    if method != used[name]:
        raise SpecError(
            f"train.params: {name} must be {used[name]} beside feature_fraction_bynode below 1, "
            f"got {method}; leave one of them out."
        )
    if used["use_quantized_grad"] == "1" and used["linear_tree"] == "1":
        raise SpecError(
            "train.params: linear_tree must not be set beside use_quantized_grad, with which "
            "LightGBM learns nothing; leave one of them out."
        )
    bins = used["num_grad_quant_bins"]
    if used["use_quantized_grad"] == "1" and int(bins) < 2:
        raise SpecError(
            f"train.params: num_grad_quant_bins must be at least 2, got {bins}: with fewer "
            "LightGBM learns nothing."
        )


def _objective(booster: lgb.Booster) -> str:
    """Return the objective and its settings as a model file names them."""
    lines = booster.model_to_string(num_iteration=1).splitlines()
    return next((li.removeprefix("objective=") for li in lines if li.startswith("objective=")), "")
