"""Work through many requests: each answered once, whatever happens on the way.

Answers go to a file of records, requests that can never succeed to a quarantine beside it, with the
reason. Whoever starts the same work again goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.records import Records
from speechbrain_clsp.annotation.retries import RequestRejectedError, ServerUnavailableError
from speechbrain_clsp.utils.files import atomic_write

WINDOW = 2  # jobs prepared, as a multiple of those in flight: servers never wait for audio
SYNC_EVERY = 16  # records between two flushes to the disk


@dataclass(frozen=True)
class Request:
    """A job that is ready to be asked.

    Arguments
    ---------
    key : str
        See :func:`~speechbrain_clsp.annotation.records.record_key`, over all that is sent.
    ask : callable
        Takes the client; returns the record's fields, without ``key``, ``id`` and ``ticket``.
    """

    key: str
    ask: Callable[[ChatClient], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Job:
    """A request that is not prepared yet.

    Arguments
    ---------
    id : str
        The clip's.
    ticket : str
        A key that costs nothing to compute, so that a restart need not read audio again. It trusts
        that a file whose path, size and time are the same has the same content.
    prepare : callable
        Reads what is needed and returns the :class:`Request`; runs in a thread.
    """

    id: str
    ticket: str
    prepare: Callable[[], Request]


@dataclass
class RunReport:
    """What a run did.

    Arguments
    ---------
    done, skipped : int
        Jobs that got a record now, and those that had one before.
    quarantined : dict
        Jobs put aside now, by reason.
    requests, prompt_tokens, completion_tokens : int
        What was sent to servers that answered, repeated requests included.
    retries : dict
        Attempts that failed, by kind.
    cost : float
        In the currency of the prices; None without prices.
    seconds : float
        Duration.
    """

    done: int = 0
    skipped: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    cost: float | None = None
    seconds: float = 0.0


def quarantine_path(records: str | os.PathLike) -> Path:
    """Return the file of the jobs that were put aside.

    Example
    -------
    >>> quarantine_path("out/caption.jsonl").name
    'caption.quarantine.jsonl'
    """
    return Path(records).with_suffix(".quarantine.jsonl")


def report_path(records: str | os.PathLike) -> Path:
    """Return the file of the last run's report.

    Example
    -------
    >>> report_path("out/caption.0-of-4.jsonl").name
    'caption.0-of-4.report.json'
    """
    return Path(records).with_suffix(".report.json")


def run_jobs(
    jobs: Iterable[Job],
    settings: ServerSettings,
    records: str | os.PathLike,
    total: int | None = None,
) -> RunReport:
    """Ask every job once; those that have a record, or are in quarantine, are not asked again.

    The first interrupt (SIGINT) lets what is in flight finish, a second one stops at once.

    Arguments
    ---------
    jobs : iterable of Job
        Read as they are needed: there may be millions.
    settings : ServerSettings
        Which servers are asked, and how many requests may be put aside before the run stops.
    records : str or path
        File of records, see :class:`~speechbrain_clsp.annotation.records.Records`.
    total : int, optional
        Number of jobs, for the progress bar.

    Returns
    -------
    RunReport
        Also written beside the records, after failed runs too.

    Raises
    ------
    ServerUnavailableError
        If servers do not answer; run again to go on.
    ValueError
        If more than ``failure_limit`` jobs had to be put aside.
    """
    records = Path(records)
    run = _Run(settings)
    with Records(records, SYNC_EVERY) as kept, Records(quarantine_path(records)) as aside:
        try:
            asyncio.run(run.go(jobs, kept, aside, total))
        finally:
            atomic_write(report_path(records), json.dumps(asdict(run.summary()), indent=2))
    return run.report


class _Run:
    def __init__(self, settings: ServerSettings) -> None:
        self.client = ChatClient(settings)
        self.price = settings.price
        self.failure_limit = settings.failure_limit
        self.report = RunReport()
        self.reasons: Counter[str] = Counter()
        self.started = time.monotonic()

    def summary(self) -> RunReport:
        """Bring the report up to date."""
        usage, report = self.client.usage, self.report
        report.requests, report.retries = usage.requests, dict(usage.retries)
        report.prompt_tokens = usage.prompt_tokens
        report.completion_tokens = usage.completion_tokens
        if self.price:
            used = (usage.prompt_tokens, usage.completion_tokens)
            report.cost = sum(n * price for n, price in zip(used, self.price)) / 1e6
        report.quarantined = dict(self.reasons)
        report.seconds = time.monotonic() - self.started
        return report

    async def go(
        self, jobs: Iterable[Job], kept: Records, aside: Records, total: int | None
    ) -> None:
        """Keep a window of jobs going until none is left, or something stops the run."""
        done = kept.tickets | aside.keys
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _interrupt(stop))
        window, tasks = WINDOW * self.client.limit.maximum, set()
        with (
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            tqdm(total=total, unit="clip", smoothing=0.02) as bar,
        ):
            try:
                for number, job in enumerate(self._undone(jobs, done, bar)):
                    if number == 0:  # without work, servers need not be there
                        await self.client.check()
                    tasks.add(asyncio.create_task(self._one(job, kept, aside, pool, bar)))
                    if len(tasks) >= window:
                        tasks = await _finish(tasks, asyncio.FIRST_COMPLETED)
                    if stop.is_set():
                        break
                await _finish(tasks, asyncio.FIRST_EXCEPTION)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await self.client.close()

    def _undone(self, jobs: Iterable[Job], done: set[str | None], bar: tqdm) -> Iterator[Job]:
        for job in jobs:
            if job.ticket not in done:
                yield job
                continue
            self.report.skipped += 1
            bar.update()

    async def _one(
        self, job: Job, kept: Records, aside: Records, pool: Executor, bar: tqdm
    ) -> None:
        """Prepare and ask one job, and write what came of it."""
        loop = asyncio.get_running_loop()
        try:
            request = await loop.run_in_executor(pool, job.prepare)
            fields = await request.ask(self.client)
        except ServerUnavailableError:
            raise
        except (RequestRejectedError, OSError, ValueError) as error:
            self._put_aside(job, " ".join(str(error).split()), aside)
        else:
            head = {"key": request.key, "id": job.id, "ticket": job.ticket}
            self.report.done += kept.append({**head, **fields})
        bar.update()
        bar.set_postfix_str(self._progress(), refresh=False)

    def _put_aside(self, job: Job, reason: str, aside: Records) -> None:
        aside.append({"key": job.ticket, "id": job.id, "reason": reason})
        self.reasons[reason.partition(":")[0][:80]] += 1
        if sum(self.reasons.values()) > self.failure_limit:
            raise ValueError(
                f"More than {self.failure_limit} requests were put aside, the last ({job.id})"
                f" because: {reason}. See {aside.path}; correct the cause, delete the file and run"
                " again, or raise failure_limit"
            )

    def _progress(self) -> str:
        report = self.summary()
        tokens = (report.prompt_tokens + report.completion_tokens) / 1e6
        parts = [f"{tokens:.2f} M tokens", f"{self.client.limit.size} at a time"]
        if report.cost is not None:
            parts.append(f"cost {report.cost:.2f}")
        counts = {"retries": sum(report.retries.values()), "aside": sum(self.reasons.values())}
        return ", ".join(parts + [f"{name} {n}" for name, n in counts.items() if n])


async def _finish(tasks: set, when: str) -> set:
    """Wait; return the tasks that go on. The error of one ends the run."""
    if not tasks:
        return tasks
    finished, going = await asyncio.wait(tasks, return_when=when)
    for task in finished:
        task.result()
    return going


def _interrupt(stop: asyncio.Event) -> Callable[[], None]:
    def handle() -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        tqdm.write("Finishing what is in flight; interrupt again to stop at once.")

    return handle
