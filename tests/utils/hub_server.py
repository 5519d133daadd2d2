"""A small HTTP server that answers file requests as the Hugging Face Hub does."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves ``files``: {(repository, file name): bytes}, at any revision but ``no-such``.

    Set ``status`` to answer everything with an HTTP error, or to 0 to close every connection
    without an answer; ``dropped[file name]`` to the number of
    downloads of a file that break off half-way. ``requests`` lists (method, path, Range header).
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files: dict[tuple[str, str], bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.status: int | None = None
        self.dropped: dict[str, int] = {}
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def downloads(self) -> list[str]:
        """Return the names of the files that were sent, as often as they were."""
        gets = [path for method, path, _ in self.requests if method == "GET"]
        return [path.rsplit("/", 1)[-1] for path in gets if "/resolve/" in path]


class HubHandler(BaseHTTPRequestHandler):
    """Answers HEAD and GET on [/datasets]/<user>/<name>/resolve/<revision>/<file>."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Send what is known of a file."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """Send a file, or what is left of it."""
        self._answer(with_body=True)

    def log_message(self, *args) -> None:
        """Say nothing."""

    def _answer(self, with_body: bool) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, wanted))
        parts = self.path.removeprefix("/datasets").split("/", 5)
        if len(parts) < 6:  # what newer clients ask for besides files
            return self._refuse(404)
        if parts[1] == "api" and "/tree/" in self.path:
            return self._send_nothing()
        _, user, name, _, revision, file = parts
        content = self.server.files.get((f"{user}/{name}", file))
        known = {repository for repository, _ in self.server.files}
        if self.server.status is not None:
            return self._refuse(self.server.status)
        if f"{user}/{name}" not in known:
            return self._refuse(404, "RepoNotFound")
        if revision == "no-such":
            return self._refuse(404, "RevisionNotFound")
        if content is None:
            return self._refuse(404, "EntryNotFound", revision if len(revision) == 40 else COMMIT)
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", revision if len(revision) == 40 else COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body and self.server.dropped.get(file, 0) > 0:
            self.server.dropped[file] -= 1
            self.wfile.write(content[start : start + (len(content) - start) // 2])
            self.close_connection = True
        elif with_body:
            self.wfile.write(content[start:])

    def _send_nothing(self) -> None:
        """List a subfolder that is empty, as tokenizers ask for chat templates."""
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def _refuse(self, status: int, code: str | None = None, commit: str | None = None) -> None:
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        if commit:  # without it, clients do not remember that there is no such file
            self.send_header("X-Repo-Commit", commit)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
