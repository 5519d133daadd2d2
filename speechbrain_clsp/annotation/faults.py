"""Why a server cannot be asked: addresses and keys that are wrong, causes of failed connections."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

COMPLETIONS = "/chat/completions"


def check_address(url: str) -> None:
    """Raise ValueError if a ``base_url`` is not an address of the protocol.

    Example
    -------
    >>> check_address("localhost:8000/v1")
    Traceback (most recent call last):
    ...
    ValueError: base_url 'localhost:8000/v1' has no scheme: write 'http://localhost:8000/v1'
    """
    name = f"base_url {url!r}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # each raises ValueError
    except ValueError as error:
        raise ValueError(f"{name} is not an address: {error}") from error
    if "://" not in url:
        raise ValueError(f"{name} has no scheme: write {'http://' + url.lstrip('/')!r}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{name} must begin with http:// or https://")
    if not host or any(sign.isspace() for sign in url):
        raise ValueError(f"{name} must be of the form http://host:port/v1, without spaces")
    if parts.path.rstrip("/").endswith(COMPLETIONS):
        short = url.rstrip("/").removesuffix(COMPLETIONS)
        raise ValueError(f"{name} names one request: leave out its end, write {short!r}")


def check_variable(name: str) -> None:
    """Raise ValueError if the name of an environment variable is none, but probably a key."""
    if not name.isidentifier():
        raise ValueError(
            "api_key_variable must be the name of an environment variable, such as OPENAI_API_KEY,"
            " not a key: keys do not belong in files"
        )


def read_key(variable: str) -> str:
    """Return the key that an environment variable holds, ``none`` if it is not set.

    Raises
    ------
    ValueError
        If no header can hold it. The message does not show it.
    """
    check_variable(variable)
    key = os.environ.get(variable) or "none"  # local servers need none
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(
            f"The key in the environment variable {variable} has a line break, a space or a sign"
            f" that keys do not have: set it again, such as by export {variable}=$(cat FILE)"
        )
    return key


def proxy_of(url: str) -> str:
    """Return how the environment says that an address is reached by a proxy, "" if it is not."""
    parts = urlsplit(url)
    proxies = getproxies()
    kind = parts.scheme if parts.scheme in proxies else "all"
    if kind not in proxies or proxy_bypass(parts.hostname or ""):
        return ""
    place = proxies[kind].rpartition("@")[2]  # not who uses it
    return (
        f" (through the proxy {place} of the environment variable {kind.upper()}_PROXY: unset it,"
        f" or list {parts.hostname} in NO_PROXY, if that is wrong)"
    )


def explain_connection(error: BaseException, url: str) -> str:
    """Return why a server could not be reached, and what to do, from the causes of an error.

    Arguments
    ---------
    error : Exception
        As the client library raises it, with its causes.
    url : str
        The server's ``base_url``.

    Example
    -------
    >>> explain_connection(ConnectionRefusedError(111, "refused"), "http://127.0.0.1:9/v1")
    'nothing listens there: start it, or correct the address'
    """
    causes = list(_causes(error))
    texts = " ".join(str(cause) for cause in causes)
    through = proxy_of(url)
    plain = url.replace("https://", "http://", 1)
    host = urlsplit(url).hostname
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes) or (
        "CERTIFICATE_VERIFY_FAILED" in texts
    ):
        reason = texts.rpartition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return (
            f"its certificate cannot be verified ({reason}): set the environment variable"
            f" SSL_CERT_FILE to a file with the certificate of who signed it, or correct the"
            f" name{through}"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "[SSL" in texts:
        return f"it does not speak TLS: write {plain} if it is an http server{through}"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"the host {host} is not known: correct the name, or the network's DNS{through}"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return f"nothing listens there: start it, or correct the address{through}"
    reason = " ".join(str(causes[-1]).split())[:200] or type(causes[-1]).__name__
    broken = any(
        isinstance(cause, ConnectionError) or "ProtocolError" in type(cause).__name__
        for cause in causes
    )
    if broken and url.startswith("http:"):
        secured = url.replace("http:", "https:", 1)
        return (
            f"it broke off the connection ({reason}): write {secured} if it is an https server,"
            f" otherwise see its log{through}"
        )
    return f"the connection failed ({reason}): see the server's log and the network{through}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from, the first cause last."""
    found: BaseException | None = error
    for _ in range(20):
        if found is None:
            return
        yield found
        found = found.__cause__ or found.__context__


def explain_status(code: int, text: str, url: str, variable: str) -> str:
    """Return what to do about a status that is the same for every request, after its text.

    Arguments
    ---------
    code : int
        The status.
    text : str
        Status and message of the server.
    url : str
        Its ``base_url``.
    variable : str
        The environment variable of the key.

    Example
    -------
    >>> explain_status(404, "404: Not Found", "http://localhost:8000", "OPENAI_API_KEY")
    "404: Not Found: the address lacks /v1: write base_url 'http://localhost:8000/v1'"
    """
    if code == 401:
        state = "correct" if os.environ.get(variable) else "set"
        return f"{text}: {state} the key, in the environment variable {variable}"
    if code == 402:
        return f"{text}: the account that belongs to the key in {variable} must be paid for"
    if code == 403:
        return (
            f"{text}: the key in the environment variable {variable} may not do that, or a proxy or"
            f" firewall refuses{proxy_of(url)}"
        )
    if code == 407:
        return f"{text}: the proxy wants a name and a password{proxy_of(url)}"
    if code == 400:
        secured = url.replace("http:", "https:", 1)
        hint = f": write {secured}" if "https" in text.lower() and secured != url else ""
        return f"{text}{hint}"
    if not urlsplit(url).path.strip("/"):
        return f"{text}: the address lacks /v1: write base_url {url.rstrip('/') + '/v1'!r}"
    return f"{text}: correct the model or the address {url}{proxy_of(url)}"
