"""Work through many requests: each answered once, whatever happens on the way.

Answers go to a file of records, requests that can never succeed to a quarantine beside it, with the
reason. Whoever starts the same work again goes on where it stopped.

A request goes to the quarantine only after the servers answered another one that was sent after it
failed. If need be, one that was answered before is sent again.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm import tqdm

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings, Usage
from speechbrain_clsp.annotation.records import Records
from speechbrain_clsp.annotation.retries import (
    RequestRejectedError,
    ServerUnavailableError,
    UnansweredError,
)
from speechbrain_clsp.utils.files import atomic_write

WINDOW = 2  # jobs prepared, as a multiple of those in flight: servers never wait for audio
SYNC_EVERY = 16  # records between two flushes to the disk
MOST_REJECTED = 5  # requests that are rejected before any is answered; then the run stops

Ask = Callable[[ChatClient], Awaitable[dict[str, Any]]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Job:
    """A request that is not prepared yet.

    Arguments
    ---------
    id : str
        The clip's.
    ticket : str
        A key from path, size and time of the file, so that a restart need not read audio again.
    prepare : callable
        Reads what is needed, in a thread, and returns the record's key, over all that is sent, and
        a function from the client to the record's other fields; or these fields, where there is
        nothing to ask.
    """

    id: str
    ticket: str
    prepare: Callable[[], tuple[str, Ask | Mapping[str, Any]]]


@dataclass
class RunReport(Usage):
    """What a run sent, see :class:`~speechbrain_clsp.annotation.client.Usage`, and did.

    Arguments
    ---------
    done, skipped : int
        Jobs that got a record now, and those that had one before.
    quarantined : dict
        Jobs put aside now, by reason.
    in_quarantine : int
        All jobs put aside so far.
    cost : float
        In the currency of the prices; None without prices.
    seconds : float
        Duration.
    interrupted : bool
        Whether it was stopped before all was done.
    """

    done: int = 0
    skipped: int = 0
    quarantined: dict[str, int] = field(default_factory=dict)
    in_quarantine: int = 0
    cost: float | None = None
    seconds: float = 0.0
    interrupted: bool = False


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
        File of records, such as ``x.jsonl``; ``x.quarantine.jsonl`` gets what is put aside, and
        ``x.report.json`` what is returned, after failed runs too.
    total : int, optional
        Number of jobs, for the progress bar.

    Returns
    -------
    RunReport
        What was asked, answered and put aside, in which time and for how much.

    Raises
    ------
    ServerUnavailableError
        If servers do not answer, or reject all requests; run again to go on.
    ValueError
        If more than ``failure_limit`` jobs had to be put aside.

    Example
    -------
    >>> settings = ServerSettings("http://localhost:8000/v1", "Qwen3-32B")
    >>> run_jobs([], settings, getfixture("tmp_path") / "caption.jsonl").requests
    0
    """
    records, started = Path(records), time.monotonic()
    report = RunReport()
    client = ChatClient(settings, report)
    with (
        Records(records, SYNC_EVERY) as kept,
        Records(records.with_suffix(".quarantine.jsonl")) as aside,
        tqdm(total=total, unit="clip", smoothing=0.02) as bar,
    ):
        try:
            asyncio.run(_Run(client, report, kept, aside, bar).work(jobs))
        finally:
            report.seconds = time.monotonic() - started
            report.cost = _cost(report, settings)
            report.in_quarantine = len(aside.keys)
            text = json.dumps(vars(report), indent=2)
            atomic_write(records.with_suffix(".report.json"), text)
    return report


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run coroutines at once and return their results; if one raises, the others are ended first.

    ``asyncio.gather`` lets them go on, unobserved.

    Example
    -------
    >>> async def double(number):
    ...     return 2 * number
    >>> asyncio.run(gather_or_cancel(map(double, [1, 2])))
    [2, 4]
    """
    tasks = [asyncio.create_task(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Doubt(NamedTuple):
    """A job that failed, because of its request or because of the servers."""

    job: Job
    error: Exception
    since: float  # when it failed


@dataclass
class _Run:
    client: ChatClient
    report: RunReport
    kept: Records
    aside: Records
    bar: tqdm
    doubted: list[Doubt] = field(default_factory=list)
    answered: Ask | None = None  # a question that was answered, to ask it again
    answering_since: float = -math.inf  # when the last question that was answered was asked
    asking_again: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def work(self, jobs: Iterable[Job]) -> None:
        """Keep a window of jobs going until none is left, or something stops the run."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, _interrupt, stop)
        undone = self._undone(jobs)
        try:
            first = next(undone, None)
            if first is None:  # without work, servers need not be there
                return
            await self.client.check()
            undone = chain([first], undone)
            window = WINDOW * self.client.limit.maximum
            await gather_or_cancel(self._take(undone, stop) for _ in range(window))
            self.report.interrupted = stop.is_set()
            await self._settle()
        finally:
            await self.client.close()

    def _undone(self, jobs: Iterable[Job]) -> Iterator[Job]:
        done = self.kept.tickets | self.aside.keys
        for job in jobs:
            if job.ticket not in done:
                yield job
                continue
            self.report.skipped += 1
            self.bar.update()

    async def _take(self, jobs: Iterator[Job], stop: asyncio.Event) -> None:
        """Do one job after the other of those that all workers share."""
        for job in jobs:
            await self._do(job)
            self.bar.update()
            self.bar.set_postfix_str(self._progress(), refresh=False)
            if stop.is_set():
                return

    async def _do(self, job: Job) -> None:
        """Prepare and ask one job, and write what came of it."""
        try:
            key, ask = await asyncio.to_thread(job.prepare)
        except (OSError, ValueError) as error:  # audio that cannot be read
            self._put_aside(job, error)
            return
        if key in self.kept.keys:  # files were copied or touched: the ticket alone is new
            self.report.skipped += 1
            return
        started = time.monotonic()
        try:
            fields = await ask(self.client) if callable(ask) else ask
        except (RequestRejectedError, UnansweredError) as error:
            self.doubted.append(Doubt(job, error, time.monotonic()))
            if isinstance(error, UnansweredError) or len(self.doubted) >= MOST_REJECTED:
                await self._settle(patient=self.answered is None)
            return
        head = {"key": key, "id": job.id, "ticket": job.ticket}
        self.report.done += self.kept.append({**head, **fields})
        if callable(ask):
            self._note_answer(ask, started)

    def _note_answer(self, ask: Ask, started: float) -> None:
        """Put doubted jobs aside that failed before a question was asked that is answered now."""
        self.answered, self.answering_since = ask, max(self.answering_since, started)
        for doubt in self.doubted.copy():
            if doubt.since < self.answering_since:
                self.doubted.remove(doubt)
                self._put_aside(doubt.job, doubt.error)

    async def _settle(self, patient: bool = False) -> None:
        """Find out whether doubted jobs or the servers are to blame; stop if it is the servers.

        If ``patient``, few jobs may be left in doubt.
        """
        if self.answered is not None:
            async with self.asking_again:
                if self.doubted:
                    started = time.monotonic()
                    try:
                        await self.answered(self.client)
                    except (RequestRejectedError, UnansweredError) as error:
                        raise ServerUnavailableError(
                            "What was answered before is not answered any more, because of:"
                            f" {_line(error)}. Run again to go on"
                        ) from error
                    self._note_answer(self.answered, started)
        elif self.doubted and not (patient and len(self.doubted) < MOST_REJECTED):
            job, why, _ = self.doubted[-1]
            raise ServerUnavailableError(
                f"No request was answered, {len(self.doubted)} failed, the last ({job.id}) because"
                f" of: {_line(why)}. Nothing was put aside: correct the cause and run again"
            ) from why

    def _put_aside(self, job: Job, error: Exception) -> None:
        reason = _line(error)
        self.aside.append({"key": job.ticket, "id": job.id, "reason": reason})
        counts, short = self.report.quarantined, reason.partition(":")[0][:80]
        counts[short] = counts.get(short, 0) + 1
        limit = self.client.settings.failure_limit
        if sum(counts.values()) > limit:
            raise ValueError(
                f"More than {limit} requests were put aside, the last ({job.id})"
                f" because: {reason}. See {self.aside.path}; correct the cause, delete the file and"
                " run again, or raise failure_limit"
            )

    def _progress(self) -> str:
        report, cost = self.report, _cost(self.report, self.client.settings)
        tokens = (report.prompt_tokens + report.completion_tokens) / 1e6
        parts = [f"{tokens:.2f} M tokens", f"{self.client.limit.size} at a time"]
        parts += [] if cost is None else [f"cost {cost:.2f}"]
        counts = {"retries": report.retries, "aside": report.quarantined}
        parts += [f"{name} {sum(found.values())}" for name, found in counts.items() if found]
        return ", ".join(parts)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _cost(usage: Usage, settings: ServerSettings) -> float | None:
    if not settings.price:
        return None
    prompt, completion = settings.price
    return (usage.prompt_tokens * prompt + usage.completion_tokens * completion) / 1e6


def _interrupt(stop: asyncio.Event) -> None:
    if stop.is_set():
        raise KeyboardInterrupt
    stop.set()
    tqdm.write("Finishing what is in flight; interrupt again to stop at once.")
