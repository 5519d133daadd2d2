"""Servers that cannot be asked: what users are told is the cause, and what to do about it."""

import asyncio
import shutil
import socket
import ssl
import subprocess

import pytest

from speechbrain_clsp.annotation.client import ChatClient, ServerSettings
from speechbrain_clsp.annotation.retries import ServerUnavailableError
from tests.utils.chat_server import MODEL, answering, completion

KEY = "A_KEY_FOR_TESTS"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Hide proxies, certificates and keys of whoever runs the tests."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv(KEY, raising=False)


def ask(url, check: bool = True, **settings):
    """Check a server and ask it one question; returns its choices."""

    async def go():
        options = {"attempts": 1, "pause": 0.01, "timeout": 10.0, "api_key_variable": KEY}
        client = ChatClient(ServerSettings(url, MODEL, **options | settings))
        try:
            if check:
                await client.check()
            return await client.complete([{"role": "user", "content": "Describe."}], {})
        finally:
            await client.close()

    return asyncio.run(go())


def says(url, *parts: str, error: type = ServerUnavailableError, **settings) -> None:
    """Assert that asking a server fails by a line with all parts."""
    with pytest.raises(error) as caught:
        ask(url, **settings)
    text = str(caught.value)
    assert not [part for part in parts if part not in text], text
    assert "Connection error" not in text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Return a certificate for localhost that nobody signed, and its key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl, to make a certificate")
    folder = tmp_path_factory.mktemp("certificate")
    paths = folder / "certificate.pem", folder / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True)
    return paths


@pytest.mark.parametrize("check", [True, False])
def test_certificates_and_schemes_that_do_not_fit(certificate, monkeypatch, check):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with answering(lambda request: completion(["A man."]), context) as url:
        says(f"{url}/v1", "certificate cannot be verified", "SSL_CERT_FILE", check=check)
        plain = url.replace("https", "http")
        says(f"{plain}/v1", f"write {url}/v1 if it is an https server", check=check)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        (choice,) = ask(f"{url}/v1", check)
        assert choice.message.content == "A man."
    with answering(lambda request: completion(["A man."])) as url:
        secure = url.replace("http", "https")
        says(f"{secure}/v1", f"write {url}/v1 if it is an http server", check=check)


@pytest.mark.parametrize("check", [True, False])
def test_hosts_ports_and_proxies_that_are_wrong(monkeypatch, check):
    says("http://host.invalid/v1", "the host host.invalid is not known", check=check)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    closed = f"http://127.0.0.1:{port}"
    says(f"{closed}/v1", "nothing listens there: start it", check=check)
    monkeypatch.setenv("http_proxy", closed.replace("//", "//ann:secret@"))
    with pytest.raises(ServerUnavailableError) as caught:
        ask("http://host.invalid/v1", check)
    text = str(caught.value)
    assert "HTTP_PROXY" in text and "NO_PROXY" in text and closed[7:] in text
    assert "secret" not in text
    with answering(lambda request: (407, {}, {})) as url:
        monkeypatch.setenv("http_proxy", url)
        says("http://host.invalid/v1", "HTTP_PROXY", "name and a password", check=check)
    monkeypatch.setenv("http_proxy", "nonsense://x")
    says("http://host.invalid/v1", "HTTP_PROXY", error=ValueError, check=check)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000/v1", "has no scheme: write 'http://localhost:8000/v1'"),
        ("//localhost:8000/v1", "has no scheme: write 'http://localhost:8000/v1'"),
        ("ftp://localhost/v1", "must begin with http:// or https://"),
        ("http:///v1", "http://host:port/v1"),
        ("http://localhost: 8000/v1", "is not an address"),
        ("http://localhost:80000/v1", "is not an address: Port out of range"),
        ("http://[::1/v1", "is not an address"),
        ("http://a/v1/chat/completions", "leave out its end, write 'http://a/v1'"),
        ("", "has no scheme"),
        ([], "base_url is empty"),
        (["http://a/v1", "b/v1"], "base_url 'b/v1' has no scheme"),
    ],
)
def test_addresses_that_are_none_are_refused_at_once(url, said):
    with pytest.raises(ValueError) as caught:
        ServerSettings(url)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["abc\n", "abc\r\ndef", "a b", "schl\u00fcssel", "abc\x00"[:4]])
def test_a_key_that_no_header_holds_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv(KEY, key.replace("\x00", "\x01"))
    with pytest.raises(ValueError, match=f"environment variable {KEY} has a line break") as caught:
        ask("http://127.0.0.1:9/v1")
    assert "abc" not in str(caught.value)
    with pytest.raises(ValueError, match="not a key") as caught:
        ServerSettings(api_key_variable="sk-abc")
    assert "sk-abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "path", "parts"),
    [
        (401, "/v1", ("no such key", f"set the key, in the environment variable {KEY}")),
        (402, "/v1", ("no such key", "paid")),
        (403, "/v1", ("no such key", KEY)),
        (404, "", ("the address lacks /v1: write base_url", "/v1'")),
        (404, "/v1", ("no such key", "correct the model or the address")),
    ],
)
def test_a_status_names_the_next_step(monkeypatch, status, path, parts):
    def reply(request):
        return status, {"error": {"message": "no such key"}}, {}

    with answering(reply) as url:
        for check in (True, False):
            says(url + path, *parts, check=check)
        if status == 401:
            monkeypatch.setenv(KEY, "wrong")
            says(url + path, f"correct the key, in the environment variable {KEY}")


def test_an_http_request_to_an_https_port_is_recognized_by_the_answer():
    page = b"<html>400 The plain HTTP request was sent to HTTPS port</html>"
    with answering(lambda request: (400, page, {"Content-Type": "text/html"})) as url:
        says(f"{url}/v1", f"write {url.replace('http', 'https')}/v1")
