"""The process of a service: its socket, slow clients, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from speechbrain_clsp.serve.limits import Limits


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens; OSError, with what to do, if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small parts at once (TCP_NODELAY) only if the protocol is named.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(1024)
    except OSError as error:
        opened.close()
        raise OSError(
            f"--port {port} cannot be used on {host} ({error.strerror}): choose another, 0 for any"
            " that is free, or another address"
        ) from error
    return opened


def run_server(
    app: Any, opened: socket.socket, limits: Limits, on_start: Callable[[uvicorn.Server], object]
) -> None:
    """Serve an application until SIGTERM or SIGINT; requests that were accepted are answered.

    Arguments
    ---------
    app : ASGI application
        What answers.
    opened : socket
        From :func:`open_socket`; it is closed at the end.
    limits : Limits
        Seconds in which headers must come.
    on_start : callable
        Called when requests are answered, with the server; setting its ``should_exit`` ends it.
    """
    with suppress(ValueError, OSError):  # each slow client holds a file descriptor
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    config = uvicorn.Config(
        app,
        http=_patient(limits.header_timeout),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=1 << 16,
    )
    server = _Server(config, on_start)
    asyncio.run(server.serve(sockets=[opened]))


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, on_start: Callable[[uvicorn.Server], object]
    ) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and tell."""
        await super().startup(sockets)
        self._on_start(self)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to end by a signal."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()  # they did what they should: not to be raised again


def _patient(seconds: float) -> type[asyncio.Protocol]:
    """Return a protocol that closes connections whose headers take longer."""

    class Patient(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_headers()

        def connection_lost(self, error: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(error)

        def _await_headers(self) -> None:
            """Keep one timer running while no request is there."""
            is_idle = self.cycle is None or self.cycle.response_complete
            if not is_idle and self._timer is not None:
                self._timer.cancel()
                self._timer = None
            elif is_idle and self._timer is None:
                self._timer = self.loop.call_later(seconds, self._give_up)

        def _give_up(self) -> None:
            self._timer = None
            if (self.cycle is None or self.cycle.response_complete) and self.transport:
                self.transport.close()

    return Patient
