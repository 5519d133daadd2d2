"""The command ``clsp serve``: a model as a service over HTTP, with a page to try it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechbrain_clsp.cli.common import add_command, extra_needed, open_manifest, whole_number
from speechbrain_clsp.cli.models import load_model
from speechbrain_clsp.utils.reading import read_text

if TYPE_CHECKING:
    from speechbrain_clsp import CLSP
    from speechbrain_clsp.search import StyleIndex

PORT = 8000
PUBLIC_NOTE = """clsp: others can reach this service at {host}:{port}: {token}.
clsp: traffic is not encrypted: outside of a network you trust, put a server with TLS before it."""


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    command = add_command(
        commands,
        run_serve,
        "serve",
        "a model as a service on this machine, with a page to try it",
        "clsp serve --model results/mini/model --index results/mini/index",
    )
    command.add_argument("--model", help="as for clsp score")
    command.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...; default: cpu")
    command.add_argument(
        "--background",
        help="clips that percentiles compare with: a manifest, of which 512 are embedded at the"
        " start; default: those in the model's folder, which training put there",
    )
    command.add_argument("--index", help="what clsp index made, to search in")
    command.add_argument(
        "--recognizer", help="folder or Hub repository for SpeechBrain's EncoderASR, to guard words"
    )
    command.add_argument("--host", default="127.0.0.1", help="address; default: this machine only")
    command.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=PORT,
        help=f"0: any that is free; default: {PORT}",
    )
    command.add_argument(
        "--allow-host",
        nargs="+",
        default=[],
        metavar="NAME",
        help="further names under which browsers may reach it",
    )
    command.add_argument(
        "--allow-frame",
        nargs="+",
        default=[],
        metavar="ORIGIN",
        help="sites whose pages may show the page in a frame, such as https://huggingface.co",
    )
    command.add_argument(
        "--token-file",
        help="a file with the token that requests must bring; default: $CLSP_TOKEN, if it is set",
    )


def run_serve(options: argparse.Namespace) -> None:
    """Serve until interrupted or terminated."""
    with extra_needed("serve", "clsp serve"):
        from speechbrain_clsp.serve.app import create_app
        from speechbrain_clsp.serve.server import open_socket, run_server
    from speechbrain_clsp.serve.limits import Limits
    from speechbrain_clsp.serve.service import StyleService

    token = _read_token(options.token_file)
    with open_socket(options.host, options.port) as opened:  # before the model, which takes longer
        port = opened.getsockname()[1]
        clsp = load_model(options)
        is_calibrated = _load_background(clsp, options.background)
        index = _load_index(clsp, options.index)
        service = StyleService(clsp, Limits(), _load_recognizer(options.recognizer), index)
        is_public = options.host not in ("127.0.0.1", "localhost", "::1")
        app = create_app(service, options.allow_host, is_public, token, options.allow_frame)
        name = f"[{options.host}]" if ":" in options.host else options.host
        if is_public:
            print(
                PUBLIC_NOTE.format(
                    host=name,
                    port=port,
                    token="only who has the token is answered"
                    if token
                    else "anyone who does may use it; give --token-file to ask for a token",
                ),
                file=sys.stderr,
            )

        def announce(_: object) -> None:
            print(f"{service.clsp.source} at http://{name}:{port}/", flush=True)
            if not is_calibrated:
                print("There are no percentiles: give clips to compare with as --background.")
            print("Interfaces are at /docs. Interrupt to stop.", flush=True)

        run_server(app, opened, service.limits, announce)
    print("Stopped; all accepted requests were answered.")


def _read_token(path: str | None) -> str | None:
    if path and not Path(path).is_file():
        raise FileNotFoundError(f"--token-file {path} is not a file: write the token into one")
    token = read_text(path).strip() if path else os.environ.get("CLSP_TOKEN", "").strip()
    if path and not token:
        raise ValueError(f"--token-file {path} is empty")
    if not token.isascii() or any(character.isspace() for character in token):
        raise ValueError("The token must be one word of ASCII characters")
    return token or None


def _load_recognizer(source: str | None) -> Any:
    if source is None:
        return None
    from speechbrain.inference.ASR import EncoderASR

    try:
        return EncoderASR.from_hparams(source)
    except Exception as error:  # anything can come of a definition that is foreign, or of the Hub
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"--recognizer {source} could not be opened as SpeechBrain's EncoderASR:"
            f" {type(error).__name__}: {reason}"
        ) from error


def _load_index(clsp: CLSP, folder: str | None) -> StyleIndex | None:
    if folder is None:
        return None
    from speechbrain_clsp.search import StyleIndex

    index = StyleIndex.open(folder)
    index.check_model(clsp.weights_sha256(), clsp.source)
    return index


def _load_background(clsp: CLSP, path: str | None) -> bool:
    """Read or embed the clips that percentiles compare with; tells whether there are any."""
    if path is not None:
        from speechbrain_clsp.inference.background import embed_background

        clsp.set_background(embed_background(clsp, open_manifest(path)))
    return clsp.background is not None
