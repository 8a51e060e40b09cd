"""Several processes on one piece of work: which one this is, as ``torchrun`` tells it."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from sincut.errors import SincutError


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is, and which GPU of its machine is its own."""

    index: int
    count: int
    gpu: int | None

    @classmethod
    def from_environment(cls) -> Processes:
        """As ``torchrun`` tells it."""
        numbers: dict[str, int] = {}
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            if name in os.environ:
                value = os.environ[name]
                if not (value.isascii() and value.isdigit()):
                    raise SincutError(
                        f"{name} in the environment must be a whole number, got {value!r}; "
                        "start with torchrun, or without it"
                    )
                numbers[name] = int(value)
        index, count = numbers.get("RANK", 0), numbers.get("WORLD_SIZE", 1)
        if index >= count or (count > 1 and "RANK" not in numbers):
            raise SincutError(
                f"RANK in the environment must be below WORLD_SIZE, got "
                f"{numbers.get('RANK', 'none')} and {numbers.get('WORLD_SIZE', 'none')}; "
                "start with torchrun, or without it"
            )
        return cls(index, count, numbers.get("LOCAL_RANK"))

    def mine(self, number: int) -> bool:
        """Whether a numbered piece of work is this process's to do."""
        return number % self.count == self.index

    def choose_gpu(self, device: str) -> None:
        """Make the process's own GPU the one that ``cuda`` means."""
        if device != "cuda" or self.gpu is None:
            return
        present = torch.cuda.device_count()
        if self.gpu >= present:
            raise SincutError(
                f"LOCAL_RANK in the environment must be below the number of GPUs, {present}, got "
                f"{self.gpu}; try torchrun --nproc-per-node {present}"
            )
        torch.cuda.set_device(self.gpu)
