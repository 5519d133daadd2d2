"""What every part needs: the device, sizes, clocks, and how rows are run."""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from gpu_parts.results import Results

RowFunction = Callable[[], dict]


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one piece of work.

    Arguments
    ---------
    seconds : float
        Median.
    spread : float
        Largest less smallest, over the median: smaller differences are noise.
    peak_gib : float
        Of memory that PyTorch allocated on the GPU; on a CPU, of the process.
    """

    seconds: float
    spread: float
    peak_gib: float


@dataclass(frozen=True)
class Setting:
    """Where and how large.

    Arguments
    ---------
    device : torch.device
        Where it runs.
    small : bool
        Tiny sizes, which only check that everything runs.
    folder : Path
        For data and checkpoints; it is removed after the part.
    threads : int
        Of the CPU.
    """

    device: torch.device
    small: bool
    folder: Path
    threads: int

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def pick(self, full, small):
        """Return the size for this run."""
        return small if self.small else full

    def synchronize(self) -> None:
        """Wait until the device has done what it was told."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def free(self) -> None:
        """Give unused memory back, and begin a new count of its peak."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Return the largest amount of memory in use since :meth:`free`."""
        if self.on_gpu:
            return torch.cuda.max_memory_allocated() / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    def measure(self, work: Callable[[], object], repeats: int = 5, warm_up: int = 2) -> Timing:
        """Time some work: after a warm-up, each repetition from an idle device to an idle one."""
        repeats, warm_up = self.pick((repeats, warm_up), (2, 1))
        self.free()
        for _ in range(warm_up):
            work()
        times = []
        for _ in range(repeats):
            self.synchronize()
            start = time.perf_counter()
            work()
            self.synchronize()
            times.append(time.perf_counter() - start)
        middle = statistics.median(times)
        return Timing(middle, (max(times) - min(times)) / middle, self.peak_gib())


@contextmanager
def float32_products(tf32: bool) -> Iterator[None]:
    """Choose between float32 and TF32 for matrix products and convolutions of float32 tensors."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def rounded(value):
    """Return a number with five significant digits; everything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def run_rows(options: argparse.Namespace) -> None:
    """Run the rows of ``options.part`` in this process until its time is over."""
    results = Results(options.output / "gpu.json")
    part, row = options.part, None
    results.current(part, "(import)")
    torch.set_num_threads(options.threads)
    folder = options.output / f"{part}_files"
    folder.mkdir(exist_ok=True)
    setting = Setting(torch.device(options.device), options.small, folder, options.threads)
    with float32_products(tf32=False):
        for name, function in importlib.import_module(f"gpu_parts.{part}").rows(setting):
            row = {"row": name}
            if time.time() > options.deadline - setting.pick(5, 0):
                results.add(part, {**row, "error": "not run: the part's time is over"})
                continue
            results.current(part, name)
            try:
                if f"{part}:{name}" in options.fail:
                    raise RuntimeError("planted failure")
                if f"{part}!{name}" in options.fail:
                    os.abort()
                row |= {key: rounded(value) for key, value in function().items()}
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                row["error"] = f"{type(error).__name__} at {place}: {str(error)[:400]}"
                traceback.print_exc()
                error.__traceback__ = None  # its frames hold tensors
            results.add(part, row)
            setting.free()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of process groups and loaders may hold Python's end up
