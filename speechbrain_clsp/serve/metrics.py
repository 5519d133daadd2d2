"""Counts of a service, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from speechbrain_clsp.serve.service import StyleService

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics(Collector):
    """What a service counts: requests, batches, what waits, and hits of its caches.

    Arguments
    ---------
    service : StyleService
        Whose caches and queue are looked at whenever metrics are asked for.
    paths : sequence of str
        Paths that are counted by name; others are counted as ``other``.

    Example
    -------
    >>> from types import SimpleNamespace
    >>> from speechbrain_clsp.inference.cache import EmbeddingCache
    >>> model = SimpleNamespace(n_waiting=3, audio_cache=EmbeddingCache())
    >>> clsp = SimpleNamespace(text_cache=EmbeddingCache())
    >>> metrics = Metrics(SimpleNamespace(model=model, clsp=clsp), ("/v1/score",))
    >>> metrics.count_request("/v1/score", 200, 0.02)
    >>> metrics.count_request("/elsewhere", 404, 0.01)
    >>> text = metrics.text().decode()
    >>> 'clsp_requests_total{path="other",status="404"} 1.0' in text
    True
    >>> "clsp_waiting_clips 3.0" in text
    True
    """

    def __init__(self, service: StyleService, paths: tuple[str, ...]) -> None:
        self.service, self.paths = service, paths
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "clsp_requests", "Requests", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "clsp_request_seconds",
            "Seconds from the first byte to the answer",
            ["path"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._batches = Histogram(
            "clsp_batch_clips",
            "Waveforms that were embedded together",
            registry=self.registry,
            buckets=SIZES,
        )
        self._padded = Counter(
            "clsp_padded_seconds", "Audio that was embedded, with padding", registry=self.registry
        )
        self.registry.register(self)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request by its path and status."""
        name = path if path in self.paths else "other"
        self._requests.labels(name, str(status)).inc()
        self._seconds.labels(name).observe(seconds)

    def count_batch(self, clips: int, seconds: float) -> None:
        """Count a batch of waveforms by its size and padded seconds."""
        self._batches.observe(clips)
        self._padded.inc(seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield what is looked at now."""
        yield GaugeMetricFamily(
            "clsp_waiting_clips", "Waveforms that wait", value=self.service.model.n_waiting
        )
        caches = {
            "audio": self.service.model.audio_cache,
            "text": self.service.clsp.text_cache,
        }
        hits = CounterMetricFamily("clsp_cache_hits", "Found in the cache", labels=["kind"])
        misses = CounterMetricFamily("clsp_cache_misses", "Not found", labels=["kind"])
        entries = GaugeMetricFamily("clsp_cache_entries", "In the cache", labels=["kind"])
        for kind, cache in caches.items():
            hits.add_metric([kind], cache.hits)
            misses.add_metric([kind], cache.misses)
            entries.add_metric([kind], len(cache))
        yield from (hits, misses, entries)

    def text(self) -> bytes:
        """Return all of it."""
        return generate_latest(self.registry)
