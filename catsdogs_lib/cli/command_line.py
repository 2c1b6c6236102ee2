"""The command ``catsdogs``: its groups, and how errors are reported."""

import errno
import os
import sys
import warnings
from typing import NoReturn

import click

from catsdogs_lib import __version__
from catsdogs_lib.cli import client, data, models, pipeline, predict, release, serving
from catsdogs_lib.common.errors import CatsdogsError

EXTRAS = {
    "botocore": "aws",
    "mangum": "lambda",
    "aws_lambda_powertools": "lambda",
    "aws_xray_sdk": "lambda",
    "fsspec": "score",
    "pyarrow": "score",
}
"""The extra that installs a module; any other module comes with ``train``."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="catsdogs")
def cli() -> None:
    """From cat and dog photos to a trusted HTTPS endpoint."""


for module in (predict, pipeline, data, models, serving, client, release):
    for command in module.COMMANDS:
        cli.add_command(command)


def main() -> None:
    """Run the command line; errors become one sentence on stderr and exit status 2."""
    # Pillow's warnings address programmers; the answer already carries what matters to the user.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("catsdogs: interrupted; the same command goes on from what is finished", file=sys.stderr)
        raise SystemExit(130) from None
    except click.exceptions.Exit as end:
        raise SystemExit(end.exit_code) from None
    except click.ClickException as error:
        _fail(f"{error.format_message().rstrip('.')}; see 'catsdogs --help'")
    except CatsdogsError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0], "train")
        _fail(f"{error.name} is not installed; this command needs more tools: pip install 'catsdogs[{extra}]'")
    except BrokenPipeError:
        # The reader closed the pipe (`| head`): stop quietly, and keep Python from flushing into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        hint = "free some space and run it again" if full else "check the path"
        _fail(f"{error.filename or 'writing'}: {error.strerror or error}; {hint}")


def _fail(sentence: str) -> NoReturn:
    print(f"catsdogs: {sentence}", file=sys.stderr)
    raise SystemExit(2)
