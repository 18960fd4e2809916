"""DatasetManifest: a dataset exists when its manifest does."""

from __future__ import annotations

from typing import ClassVar, Literal

from arclight.contract import Contract, InnerPath, digest_of
from arclight.ledger import RowLedger
from arclight.lineage import Lineage
from arclight.plan import FeaturePlan
from arclight.schema import Column, SourceContract
from arclight.summary import ColumnSummary

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")
Part = Literal["train", "valid", "test", "quarantine", "sample"]


class DataFile(Contract):
    """One Parquet file of a dataset."""

    part: Part
    path: InnerPath
    """Relative to the dataset's folder."""
    rows: int
    size_bytes: int
    sha256: str
    row_groups: tuple[int, ...]
    """Rows of each row group, in order; the unit a worker reads."""


class SplitProof(Contract):
    """What was checked so that no key and no group stands in two splits."""

    keys: int
    """Distinct keys over all splits; equals the rows, since repeated keys are in quarantine."""
    repeated_keys: int
    """Rows of repeated keys that went to quarantine."""
    groups: dict[str, int] = {}
    """Split -> distinct groups, for a split by group."""
    group_columns: tuple[str, ...] = ()
    """Whose values make a group; empty also in a record of an older release."""
    group_overlap: int = 0
    hashed: dict[str, float] = {}
    """Share of each split, and the `seed`, of a split by hash; empty in an older record."""
    bounds: dict[str, tuple[str, str]] = {}
    """Split -> first and last time (ISO), for a split by time."""


class DatasetManifest(Contract):
    """Everything there is to know about one version of a dataset."""

    kind: ClassVar[str] = "dataset-manifest"

    name: str
    number: int
    key: str
    """Digest of the inputs, the spec's sections and the code: the same key, the same dataset."""
    folder: InnerPath
    """The data's folder, relative to the store."""
    task: Literal["binary", "multiclass", "regression"]
    label: str
    key_columns: tuple[str, ...]
    time_column: str | None
    columns: tuple[Column, ...]
    """Columns of the split files: what is carried along, the label, the features."""
    files: tuple[DataFile, ...]
    rows: dict[str, int]
    """Part -> rows."""
    codec: str
    plan: FeaturePlan
    summaries: dict[str, tuple[ColumnSummary, ...]]
    """Split -> a summary of each feature, then of the label (named by `label`)."""
    class_rows: dict[str, dict[str, int]]
    """Split -> class -> rows; empty for regression."""
    ledger: RowLedger
    proof: SplitProof
    sources: tuple[SourceContract, ...]
    lineage: Lineage
    warnings: tuple[str, ...] = ()
    asked: dict[str, str] = {}
    """Field of the spec that decides about it -> digest of its value; none in an older record."""

    @property
    def ref(self) -> str:
        """NAME@N."""
        return f"{self.name}@{self.number}"

    def files_of(self, part: Part) -> tuple[DataFile, ...]:
        """Return the files of a split, the quarantine or the sample."""
        return tuple(file for file in self.files if file.part == part)

    @property
    def content_digest(self) -> str:
        """Digest of what the data are, whatever they are called and whenever they were made.

        Not of the quarantine: rows of one key stand there in the order in which they came.
        """
        return self._digest([file for file in self.files if file.part != "quarantine"])

    def has_content(self, digest: str) -> bool:
        """Say whether a digest is of these data; those of older releases had the quarantine."""
        return digest in (self.content_digest, self._digest(list(self.files)))

    def _digest(self, files: list[DataFile]) -> str:
        return digest_of(
            {
                "files": sorted([file.part, file.rows, file.sha256] for file in files),
                "columns": [column.model_dump() for column in self.columns],
                "plan": self.plan.digest,
            }
        )
