"""Which servers a stage asks, and how it treats them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from speechbrain_clsp.annotation.client import ChatClient


@dataclass(frozen=True)
class Servers:
    """The servers of one model, all alike.

    Arguments
    ---------
    base_url : str or list of str
        Of the protocol, such as ``http://localhost:8000/v1``.
    model : str
        Name under which they know the model.
    api_key_variable : str
        Environment variable that holds the key: keys do not belong in files.
    timeout : float
        Seconds that an answer may take.
    attempts : int
        How often a request is tried.
    pause : float
        Seconds before the second attempt, at most; doubled with each further one.
    concurrency : int
        Most requests in flight at a time.
    price : tuple of float, optional
        Of a million prompt and completion tokens.
    failure_limit : int
        Requests that may be put aside before a run stops.
    """

    base_url: str | list[str] = "http://localhost:8000/v1"
    model: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    timeout: float = 300.0
    attempts: int = 6
    pause: float = 1.0
    concurrency: int = 64
    price: tuple[float, float] | None = None
    failure_limit: int = 100

    def client(self) -> ChatClient:
        """Return a client for them."""
        return ChatClient(
            self.base_url,
            self.model,
            api_key=os.environ.get(self.api_key_variable) or None,
            timeout=self.timeout,
            attempts=self.attempts,
            concurrency=self.concurrency,
            pause=self.pause,
        )
