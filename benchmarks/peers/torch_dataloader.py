"""The loop of every tutorial: TensorDataset, DataLoader, a network of the same layers, AdamW."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.ingest_job import PARAMS, Job, read_split, test_facts, with_codes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

RATE = 1e-3


class Net(nn.Module):
    """Numbers and an embedding a category, then hidden layers."""

    def __init__(self, numbers: int, levels: list[int]) -> None:
        super().__init__()
        params = PARAMS["torch"]
        width, embedding = params["width"], params["embedding"]
        self.tables = nn.ModuleList(nn.Embedding(count, embedding) for count in levels)
        layers: list[nn.Module] = []
        before = numbers + embedding * len(levels)
        for _ in range(params["depth"]):
            layers += [nn.Linear(before, width), nn.ReLU(), nn.Dropout(0.1)]
            before = width
        self.body = nn.Sequential(*layers, nn.Linear(before, 1))

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Return a logit a row."""
        parts = [table(codes[:, i]) for i, table in enumerate(self.tables)]
        found: Tensor = self.body(torch.cat([numbers, *parts], 1))
        return found[:, 0]


class Loop:
    """Read, standardize, train by batches of a DataLoader, judge valid each epoch, save."""

    def __init__(self, job: Job, scratch: Path) -> None:
        self._job, self._scratch = job, scratch
        self._scale: tuple[Any, Any] = (0.0, 1.0)

    def ready(self, number: int) -> None:
        """Models are overwritten."""

    def run(self, number: int) -> Net:
        """Read, train, save."""
        job = self._job.of_round(number)
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        x, y = read_split(job, "train")
        numbers, codes = self._tensors(x, fit=True)
        label = torch.from_numpy(y).float()
        batch = PARAMS["torch"]["batch_rows"]
        loader = DataLoader(TensorDataset(numbers, codes, label), batch, shuffle=True)
        x, y = read_split(job, "valid")
        valid = DataLoader(TensorDataset(*self._tensors(x), torch.from_numpy(y).float()), batch)
        net = Net(len(job.numbers), [len(found) for found in job.levels.values()])
        adam = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-4)
        loss = nn.BCEWithLogitsLoss()
        for _ in range(job.rounds):
            net.train()
            for numbers_, codes_, label_ in loader:
                adam.zero_grad()
                loss(net(numbers_, codes_), label_).backward()
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
                adam.step()
            net.eval()
            with torch.no_grad():
                for numbers_, codes_, label_ in valid:
                    loss(net(numbers_, codes_), label_).item()
        save_file(net.state_dict(), self._scratch / "model.safetensors")
        return net

    def facts(self, result: Net) -> dict[str, Any]:
        """Return the AUC on the test rows."""

        def score(table: pa.Table) -> Any:
            with torch.no_grad():
                return result.eval()(*self._tensors(table)).numpy()

        return test_facts(self._job, score)

    def _tensors(self, table: pa.Table, *, fit: bool = False) -> tuple[Tensor, Tensor]:
        job, coded = self._job, with_codes(self._job, table)
        numbers = np.stack([coded.column(n).to_numpy() for n in job.numbers], 1)
        if fit:
            self._scale = (np.nanmean(numbers, 0), np.nanstd(numbers, 0) + 1e-6)
        mean, spread = self._scale
        codes = np.stack([coded.column(n).to_numpy() for n in job.levels], 1).astype(np.int64)
        clean = np.nan_to_num((numbers - mean) / spread).astype(np.float32)
        return torch.from_numpy(clean), torch.from_numpy(codes)


@contextmanager
def open_side(params: dict[str, Any]) -> Iterator[Loop]:
    """There is no engine to start."""
    yield Loop(Job(**params["job"]), Path(params["scratch"]))
