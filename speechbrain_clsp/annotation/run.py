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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from speechbrain_clsp.annotation.client import ChatClient, Refused, Unavailable
from speechbrain_clsp.annotation.records import Records, read_records

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
    """A request to be.

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
    """Return the file of what was put aside: ``x.quarantine.jsonl`` for ``x.jsonl``."""
    return Path(records).with_suffix(".quarantine.jsonl")


def report_path(records: str | os.PathLike) -> Path:
    """Return the file of the last run's report: ``x.report.json`` for ``x.jsonl``."""
    return Path(records).with_suffix(".report.json")


def run_jobs(
    jobs: Iterable[Job],
    client: ChatClient,
    records: str | os.PathLike,
    total: int | None = None,
    price: tuple[float, float] | None = None,
    failure_limit: int = 100,
) -> RunReport:
    """Ask every job once; those that have a record, or are in quarantine, are not asked again.

    The first interrupt (SIGINT) lets what is in flight finish, a second one stops at once.

    Arguments
    ---------
    jobs : iterable of Job
        Read as they are needed: there may be millions.
    client : ChatClient
        Whom to ask.
    records : str or path
        File of records, see :class:`~speechbrain_clsp.annotation.records.Records`.
    total : int, optional
        Number of jobs, for the progress bar.
    price : tuple of float, optional
        Of a million prompt and completion tokens.
    failure_limit : int
        Quarantine may grow by so many before the run stops.

    Returns
    -------
    RunReport
        Also written beside the records, after failed runs too.

    Raises
    ------
    Unavailable
        If servers do not answer; run again to go on.
    ValueError
        If more than ``failure_limit`` jobs had to be put aside.
    """
    records = Path(records)
    run = _Run(client, price, failure_limit)
    with Records(records, SYNC_EVERY) as kept, Records(quarantine_path(records)) as aside:
        try:
            asyncio.run(run.go(jobs, kept, aside, total))
        finally:
            text = json.dumps(asdict(run.summary()), indent=2)
            report_path(records).write_text(text, encoding="utf-8")
    return run.report


class _Run:
    def __init__(self, client: ChatClient, price: tuple | None, failure_limit: int) -> None:
        self.client, self.price, self.failure_limit = client, price, failure_limit
        self.report, self.reasons, self.started = RunReport(), Counter(), time.monotonic()

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
        # People's ratings are records without a ticket.
        done = {record.get("ticket") for record in read_records(kept.path)} | aside.keys
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

    def _undone(self, jobs: Iterable[Job], done: set[str], bar: tqdm) -> Iterator[Job]:
        for job in jobs:
            if job.ticket not in done:
                yield job
                continue
            self.report.skipped += 1
            bar.update()

    async def _one(self, job: Job, kept: Records, aside: Records, pool, bar: tqdm) -> None:
        """Prepare and ask one job, and write what came of it."""
        loop = asyncio.get_running_loop()
        try:
            request = await loop.run_in_executor(pool, job.prepare)
            fields = await request.ask(self.client)
        except Unavailable:
            raise
        except (Refused, OSError, ValueError) as error:
            self._put_aside(job, " ".join(str(error).split()), aside)
        else:
            head = {"key": request.key, "id": job.id, "ticket": job.ticket}
            self.report.done += kept.append({**head, **fields})
        bar.update()
        bar.set_postfix_str(self._figures(), refresh=False)

    def _put_aside(self, job: Job, reason: str, aside: Records) -> None:
        aside.append({"key": job.ticket, "id": job.id, "reason": reason})
        self.reasons[reason.partition(":")[0][:80]] += 1
        if sum(self.reasons.values()) > self.failure_limit:
            raise ValueError(
                f"More than {self.failure_limit} requests were put aside, the last ({job.id})"
                f" because: {reason}. See {aside.path}; correct the cause, delete the file and run"
                " again, or raise failure_limit"
            )

    def _figures(self) -> str:
        report = self.summary()
        tokens = (report.prompt_tokens + report.completion_tokens) / 1e6
        figures = [f"{tokens:.2f} M tokens", f"{self.client.limit.size} at a time"]
        if report.cost is not None:
            figures.append(f"cost {report.cost:.2f}")
        counts = {"retries": sum(report.retries.values()), "aside": sum(self.reasons.values())}
        return ", ".join(figures + [f"{name} {n}" for name, n in counts.items() if n])


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
