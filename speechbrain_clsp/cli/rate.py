"""The command ``clsp rate``: people's ratings of how captions fit clips, in a browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from speechbrain_clsp.cli.common import add_command, extra_needed, whole_number

PORT = 8765


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    command = add_command(
        commands,
        run_rate,
        "rate",
        "a page on this machine where people rate, from 0 to 5, how well captions fit clips",
        "clsp rate items.csv --audio-root clips --output ratings.csv",
    )
    command.add_argument("items", help="a .csv file with the columns clip, caption, category")
    command.add_argument("--audio-root", help="folder of the clips; default: that of the items")
    command.add_argument(
        "--output",
        required=True,
        help="the .sqlite file that keeps ratings; or a .csv file, written from the .sqlite file"
        " beside it after each rating",
    )
    command.add_argument(
        "--port",
        type=whole_number(0, 65535),
        default=PORT,
        help=f"0: any that is free; default: {PORT}",
    )
    command.add_argument("--seed", type=int, default=0, help="of the raters' orders")


def run_rate(options: argparse.Namespace) -> None:
    """Serve the page until interrupted or terminated."""
    with extra_needed("serve", "clsp rate"):
        from speechbrain_clsp.serve.rating import LIMITS, create_rating_app
        from speechbrain_clsp.serve.server import open_socket, run_server
    from speechbrain_clsp.ratings import RatingTask

    root = options.audio_root or Path(options.items).parent
    task = RatingTask(options.items, root, options.output, options.seed)
    with open_socket("127.0.0.1", options.port) as opened:
        url = f"http://127.0.0.1:{opened.getsockname()[1]}/"

        def announce(_: object) -> None:
            print(f"{len(task.items)} items at {url}; ratings go to {options.output}", flush=True)
            print(
                f"{task.summary()} so far. Interrupt to stop; the same command goes on.", flush=True
            )

        run_server(create_rating_app(task), opened, LIMITS, announce)
    print(f"{task.summary()}. Next:")
    print(f"  clsp evaluate --suite similarity --data {options.output} --audio-root {root} ...")
