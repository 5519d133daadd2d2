"""What all commands of ``clsp`` share: the form of their options, and lists that they print."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from speechbrain_clsp.cli.boundary import USER_ERROR, write_temporary
from speechbrain_clsp.utils.checks import LISTED
from speechbrain_clsp.utils.files import atomic_write, check_replaceable, parse_key_values

if TYPE_CHECKING:
    from speechbrain_clsp.dataio.manifest import Manifest

EXAMPLE = "example: "  # begins the last line of each help
HOME = re.compile(r"((?:[\w.-]+[=:])*)~/")  # after names of models, sources or settings
DEFAULT_MODEL = "results/mini/model"
LIST_HEADER = "# Left out by clsp, with the reasons:"


class HelpFormatter(argparse.HelpFormatter):
    """Wraps an example so that it can be copied: lines end in a backslash."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith(EXAMPLE):
            return super()._fill_text(text, width, indent)
        lines = [""]
        for word in shlex.split(text.removeprefix(EXAMPLE), posix=False):  # quotation marks stay
            if lines[-1] and len(EXAMPLE) + len(lines[-1]) + len(word) + len(" ") > width - 2:
                lines.append("   ")
            lines[-1] += f" {word}" if lines[-1] else word
        return EXAMPLE + f" \\\n{' ' * len(EXAMPLE)}".join(lines)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong command line in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with exit code 2."""
        self.exit(USER_ERROR, f"clsp: error: {message} (see {self.prog} --help)\n")


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` to ``most``, as the type of an argument.

    Example
    -------
    >>> whole_number(1)("12")
    12
    """

    def read(text: str) -> int:
        bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {bounds}")
        return number

    return read


class InsteadOf(argparse.Action):
    """An option that, where it is given, makes a positional argument optional."""

    def __init__(self, *names: Any, positional: argparse.Action, **options: Any) -> None:
        super().__init__(*names, **options)
        self.positional = positional

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Keep the values."""
        setattr(namespace, self.dest, values)
        self.positional.required = False


def add_command(
    commands: argparse._SubParsersAction,
    run: Callable[[argparse.Namespace], int | None],
    name: str,
    description: str,
    example: str,
) -> argparse.ArgumentParser:
    """Add a command with an example in its help.

    Arguments
    ---------
    commands : argparse subparsers
        Where it goes.
    run : callable
        Gets the parsed options; returns the exit code, or None for 0.
    name : str
        What follows ``clsp`` on the command line.
    description : str
        One sentence, in lower case and without a period.
    example : str
        A command line that a user can copy.

    Example
    -------
    >>> commands = Parser(prog="clsp").add_subparsers()
    >>> command = add_command(commands, print, "score", "compare by a CLSP", "clsp score a.wav")
    >>> command.prog, command.description, command.epilog
    ('clsp score', 'Compare by a CLSP', 'example: clsp score a.wav')
    """
    command = commands.add_parser(
        name,
        help=description,
        description=description[0].upper() + description[1:],
        epilog=f"{EXAMPLE}{example}",
    )
    command.set_defaults(run=run)
    return command


def add_reading_options(command: argparse.ArgumentParser, more: str, bad_list: str) -> None:
    """Add the source of a user's data and the options of all commands that read it.

    Arguments
    ---------
    command : argparse.ArgumentParser
        The command; see :func:`reading_settings`.
    more : str
        What else its source may be.
    bad_list : str
        Where it lists bad rows.
    """
    command.add_argument(
        "source",
        help="a .csv, .tsv, .jsonl or .parquet file with columns for audio and captions; lhotse"
        " cuts (.jsonl); WebDataset's .tar files (a pattern such as 'a-{000..012}.tar' names"
        " several); a folder of audio files with captions in .txt files or in metadata.csv; a data"
        " folder of Kaldi; a folder of the library datasets, or org/name of a data set of the Hub"
        + more,
    )
    command.add_argument(
        "--skip-bad",
        action="store_true",
        help=f"leave bad rows out, and list them in {bad_list}",
    )
    command.add_argument(
        "--ignore-columns", nargs="+", default=[], metavar="NAME", help="columns to leave out"
    )
    command.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="KNOWN=NAME",
        help="which columns to take, such as caption=text_description wav=path; usual names are"
        " recognized",
    )
    command.add_argument("--split", help="the only split to read; of datasets also train[:100]")
    command.add_argument(
        "--data-root",
        metavar="FOLDER",
        help="where relative paths of audio start from, and what $data_root and {data_root} stand"
        " for; default: the folder of the table",
    )
    command.add_argument(
        "--captions",
        dest="captions_file",
        metavar="FILE",
        help="the file in a data folder of Kaldi that holds captions; default: captions",
    )
    command.add_argument(
        "--streaming", action="store_true", help="read a data set of the Hub without storing it"
    )


def add_ray_option(command: argparse._ActionsContainer) -> None:
    """Add ``--ray`` of the commands whose work a cluster can do in tasks."""
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="let tasks on a running Ray cluster do the work: HOST:PORT of its head node, or auto"
        " (extra: ray); its nodes need this package and a common file system",
    )


def reading_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the values of the options of :func:`add_reading_options`, but source and bad rows.

    Raises ValueError if ``--columns`` has anything but ``KNOWN=NAME``.

    Example
    -------
    >>> parser = Parser()
    >>> add_reading_options(parser, "", "bad.txt")
    >>> options = parser.parse_args(["a.csv", "--columns", "caption=style", "--split", "train"])
    >>> {name: value for name, value in reading_settings(options).items() if value}
    {'columns': {'caption': 'style'}, 'split': 'train'}
    """
    names = ("ignore_columns", "data_root", "split", "captions_file", "streaming")
    columns = parse_key_values(options.columns, "--columns")
    return {"columns": columns} | {name: getattr(options, name) for name in names}


def expand_home(options: argparse.Namespace) -> argparse.Namespace:
    """Expand ``~/`` where shells leave it: in ``--output=~/x`` and in ``NAME=~/x``.

    Example
    -------
    >>> expand_home(argparse.Namespace(seed=1, captions=["a=~/a.csv"])).captions[0][:3]
    'a=/'
    """
    for name, value in vars(options).items():
        if isinstance(value, str):
            setattr(options, name, _expand(value))
        elif isinstance(value, list):
            setattr(options, name, [_expand(v) if isinstance(v, str) else v for v in value])
    return options


def _expand(word: str) -> str:
    found = HOME.match(word)
    return f"{found[1]}{os.path.expanduser('~/')}{word[found.end() :]}" if found else word


def check_folder(folder: Path) -> None:
    """Raise NotADirectoryError if results cannot be written to a folder, since it is a file."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"--output {folder} is a file: name a folder")


def open_manifest(path: str) -> Manifest:
    """Open a manifest; what that takes is imported only then."""
    from speechbrain_clsp.dataio.manifest import Manifest

    return Manifest(path)


@contextmanager
def extra_needed(name: str, command: str) -> Iterator[None]:
    """Turn an ImportError into what to install.

    Arguments
    ---------
    name : str
        The extra whose packages are imported inside.
    command : str
        What needs it.

    Raises
    ------
    ValueError
        If one cannot be imported.

    Example
    -------
    >>> with extra_needed("serve", "clsp serve"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    ValueError: clsp serve needs the extra serve (No module named 'no_such_package'): pip install \
'speechbrain-clsp[serve]'
    """
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"{command} needs the extra {name} ({error}): pip install 'speechbrain-clsp[{name}]'"
        ) from error


def check_device(name: str) -> None:
    """Raise ValueError if torch cannot compute on a device, such as ``cuda:1``."""
    import torch

    try:
        torch.ones(1, device=name).tolist()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {name} cannot be used: {reason}") from error


def name_of_model(options: argparse.Namespace) -> str:
    """Return which model the options, the environment or the working directory name."""
    source = options.model or os.environ.get("CLSP_MODEL")
    if not source and not Path(DEFAULT_MODEL).is_dir():
        raise ValueError(
            f"no model: give --model FOLDER, set CLSP_MODEL, or run `make demo` to train"
            f" {DEFAULT_MODEL}"
        )
    return source or DEFAULT_MODEL


def list_entries(entries: Sequence[str], path: Path | None = None, indent: str = "  ") -> str:
    """Return a list as commands print it: ten entries; of a longer one, where the rest is.

    Arguments
    ---------
    entries : sequence of str
        A line each.
    path : pathlib.Path, optional
        Gets all of them if they are more than ten; see :func:`write_list`. Default: a temporary
        file that stays.
    indent : str
        In front of each.

    Example
    -------
    >>> print(list_entries([f"{n}.wav is empty" for n in range(99)],
    ...                    getfixture("tmp_path") / "x.npz.bad.txt")) # doctest: +ELLIPSIS
      0.wav is empty
    ...
      9.wav is empty
      and 89 more: .../x.npz.bad.txt
    """
    lines = list(entries[:LISTED])
    if len(entries) > LISTED:
        if path is None:
            where = write_temporary("list", "\n".join(entries))
        else:
            where = str(path)
            write_list(path, entries)
        lines.append(f"and {len(entries) - LISTED} more: {where}")
    return "\n".join(indent + line for line in lines)


def write_list(path: Path, entries: Sequence[str]) -> None:
    """Write what was left out, a line each; without entries, remove the list of an earlier run.

    Raises FileExistsError if there is a file that is no such list; see :func:`check_list`.
    """
    check_list(path)
    if entries:
        text = "\n".join([LIST_HEADER, *entries, ""])
        atomic_write(path, text.encode(errors="backslashreplace"))
    else:
        path.unlink(missing_ok=True)


def check_list(path: Path) -> None:
    """Raise FileExistsError if a file is there that :func:`write_list` did not write."""
    header = LIST_HEADER.encode()
    check_replaceable(path, lambda file: file.read_bytes().startswith(header), "a list of clsp")
