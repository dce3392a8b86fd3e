"""Cells: one run each, known by everything that determines its result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from samt.bench import data as datasets
from samt.bench import models
from samt.bench.data import Dataset
from samt.bench.experiments.code_version import code_version
from samt.bench.method_specs import SOLVERS, MethodSpec, parse_spec
from samt.bench.settings import Settings, width_text

Role = Literal["final", "tuning"]


@dataclass(frozen=True)
class Source:
    """A data set as a cell uses it.

    Args:
        name: a registered name, or a path.
        data_dir: where registered files lie.
        split_seed: of the split.
        validation: share that is split off, or 0.
    """

    name: str
    data_dir: Path | None
    split_seed: int
    validation: float

    def load(self) -> Dataset:
        """The data; where there is a validation part it stands in the place of the test part.

        A run that decides about options therefore cannot see the test part at all.
        """
        data = datasets.load(
            self.name, self.data_dir, validation=self.validation, split_seed=self.split_seed
        )
        if data.validation is None:
            return data
        return replace(data, test=data.validation, validation=None)


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        label: name of its method in the experiment.
        spec: method and options.
        source: the data.
        data_sha256: their checksum.
        model: name of the network.
        hidden: widths of its fully connected hidden layers.
        dropout: probability of dropping a hidden unit.
        batch_size: samples in a mini-batch.
        seed: of weights, batches and the method.
        device: torch's name of it.
        threads: of torch.
        budget: a key (epochs, passes or seconds) with its value.
        evaluate: epochs between two evaluations.
        tuned: options that the validation part chose, or None.
    """

    label: str
    spec: MethodSpec
    source: Source
    data_sha256: str
    model: str
    hidden: tuple[int, ...]
    dropout: float
    batch_size: int
    seed: int
    device: str
    threads: int
    budget: Mapping[str, float]
    evaluate: float
    tuned: Mapping[str, Any] | None = None

    @property
    def role(self) -> Role:
        """Whether it is judged by the test part, or chooses options by the validation part."""
        return "tuning" if self.source.validation else "final"

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything that determines the result."""
        options = dict(self.spec.options)
        if self.spec.name in SOLVERS and "loss" not in self.spec.given:
            del options["loss"]  # the data decide
        return {
            "method": self.spec.name,
            "options": options,
            "data": datasets.short_name(self.source.name),
            "data_sha256": self.data_sha256,
            "split_seed": self.source.split_seed,
            "validation": self.source.validation,
            "model": models.normal(self.model),
            "hidden": list(self.hidden),
            "dropout": self.dropout,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "device": self.device,
            "threads": self.threads,
            "budget": dict(self.budget),
            "evaluate": self.evaluate,
            "role": self.role,
            "code": code_version(self.spec.name),
            "torch": torch.__version__,
        }

    @cached_property
    def identity(self) -> str:
        """16 hexadecimal digits of the SHA-256 of `record`."""
        canonical = json.dumps(self.record, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def settings(self) -> Settings:
        """What a trainer needs; the budget stands beside it."""
        return Settings(
            method=self.spec,
            data=self.source.name,
            data_dir=self.source.data_dir,
            model=self.model,
            hidden=self.hidden,
            dropout=self.dropout,
            batch_size=self.batch_size,
            seed=self.seed,
            device=self.device,
            threads=self.threads,
        )

    @property
    def name(self) -> str:
        """For people, in one line."""
        network = f"{self.model} {width_text(self.hidden)}".strip()
        kind = " (tuning)" if self.role == "tuning" else ""
        return f"{self.record['data']}  {network}  {self.label}  seed {self.seed}{kind}"

    @property
    def file_name(self) -> str:
        """`name` as a file can be called."""
        return re.sub(r"[^A-Za-z0-9=.]+", "-", self.name).strip("-")[:150]

    def as_job(self) -> dict[str, Any]:
        """The cell as JSON, for another process, perhaps in another folder."""
        source = self.source
        return {
            "record": self.record,
            "spec": self.spec.label,
            "label": self.label,
            "data": datasets.absolute(source.name),
            "data_dir": None if source.data_dir is None else str(source.data_dir.absolute()),
            "tuned": None if self.tuned is None else dict(self.tuned),
        }

    @classmethod
    def from_job(cls, job: Mapping[str, Any]) -> Cell:
        """The cell of `as_job`, under the identity that it has there.

        That would be another one if the files of the code had changed since.
        """
        record = job["record"]
        data_dir = None if job["data_dir"] is None else Path(job["data_dir"])
        source = Source(job["data"], data_dir, record["split_seed"], record["validation"])
        same = "model dropout batch_size seed device threads budget evaluate data_sha256"
        cell = cls(
            label=job["label"],
            spec=parse_spec(job["spec"]),
            source=source,
            hidden=tuple(record["hidden"]),
            tuned=job["tuned"],
            **{name: record[name] for name in same.split()},
        )
        cell.__dict__["record"] = dict(record)  # of a cached property
        return cell
