"""A program that builds a dataset on two executor processes: SPEC STORE FOLDER, digest printed.

A fourth word, `impatient`, lets Spark start a second attempt of a task that is slow.

An executor of local mode is the driver itself and cannot be killed alone; `local-cluster` starts
real ones. No profile allows it, so the checks of a profile are passed over.
"""

from __future__ import annotations

import sys
from pathlib import Path

from arclight.catalog import Catalog
from arclight.progress import silent
from arclight.spec_file import load_spec
from arclight.store import open_store
from cluster.profiles import Profile, SparkPlace
from cluster.spark_session import spark_session
from spark.etl import build_dataset
from spark.etl_plan import plan_etl

CONF = {
    "spark.python.daemon.module": "tests.spark.held_daemon",
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
}
IMPATIENT = {
    "spark.speculation": "true",
    "spark.speculation.interval": "200ms",
    "spark.speculation.multiplier": "1.1",
    "spark.speculation.quantile": "0.25",
    "spark.executor.heartbeatInterval": "2s",
    "spark.network.timeout": "15s",
    "spark.network.timeoutInterval": "5s",
}


def main(spec: str, store: str, folder: str, manner: str = "") -> None:
    conf = {**CONF, **(IMPATIENT if manner == "impatient" else {})}
    place = SparkPlace.model_construct(master="local-cluster[2,1,1024]", conf=conf)
    profile = Profile(name="two", cores=1, memory_gib=2.0).model_copy(update={"spark": place})
    scratch = Path(folder) / "s"
    with spark_session(profile, log_folder=Path(folder), local_folder=scratch) as session:
        plan = plan_etl(load_spec(Path(spec)))
        catalog = Catalog(open_store(Path(store)))
        manifest = build_dataset(session, plan, catalog, tick=silent)
    sys.stdout.write(manifest.content_digest)


if __name__ == "__main__":
    main(*sys.argv[1:])
