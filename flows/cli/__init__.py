"""The command line: `unbraid VERB …`, thin over the flows.

Heavy imports (prefect, torch) happen inside the verbs, so that `unbraid --help` is quick.
"""

import os
import shlex
import signal
import sys
import threading

import click

from flows.cli import catalog, mashup, pages, training, worker
from flows.cli.console import printable
from tasks.settings import SettingsError

EXIT_ERROR = 1  # the run did not start or did not finish
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
_SECONDS_TO_STOP = 6.0
_GOING_ON = ("separate", "ingest", "train", "retrain", "mashup")  # run again they do what is left


class _Sentences(click.Group):
    """Every error of ours as one sentence and an exit code; no traceback unless UNBRAID_DEBUG is set."""

    def main(self, *args, **kwargs):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _interrupted)
        try:
            return super().main(*args, **kwargs)
        except (KeyboardInterrupt, click.Abort):
            _leave()
        except Exception as error:
            if os.environ.get("UNBRAID_DEBUG"):
                raise
            _say(_sentence(error))
            sys.exit(EXIT_USAGE if isinstance(error, SettingsError) else EXIT_ERROR)


def _interrupted(*_: object) -> None:
    """Ctrl-C: stop, tidy up, leave within seconds whatever else goes on; the second time leave at once.

    The embedded server gets the same signal from the terminal and is gone, and Prefect would tell it of the
    stop again and again for a minute.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
    watchdog = threading.Timer(_SECONDS_TO_STOP, _leave)
    watchdog.daemon = True
    watchdog.start()
    raise KeyboardInterrupt


def _leave() -> None:
    _say(stopped(sys.argv[1:]))
    os._exit(EXIT_INTERRUPTED)  # not sys.exit: libraries would wait for servers and workers that are gone


def stopped(arguments: list[str]) -> str:
    """What is said after Ctrl-C: where the verb can go on, the command that does."""
    if not arguments or arguments[0] not in _GOING_ON:
        return "stopped; what is finished is kept"
    again = [*arguments, *(["--resume"] if arguments[0] == "train" and "--resume" not in arguments else [])]
    return f"stopped; what is finished is kept. To go on: {shlex.join(['unbraid', *again])}"


def _sentence(error: Exception) -> str:
    from model.errors import ModelError
    from storage.errors import StorageError

    if isinstance(error, (StorageError, ModelError, SettingsError)):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return f"internal error, {type(error).__name__}: {error}; UNBRAID_DEBUG=1 shows where, please report it"


def _say(sentence: str) -> None:
    click.echo(f"unbraid: {printable(sentence)}", err=True)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="unbraid")
def main() -> None:
    """Take music catalogs apart: ingest datasets, train networks, separate tracks into stems, score them.

    Exit codes: 0 all fine, 3 finished with failed tracks (each is a row that says why), 1 did not
    start or finish, 2 wrong usage, 4 a mash-up's songs do not fit.
    """


for verb in (
    training.ingest, training.train, catalog.separate, catalog.evaluate, catalog.query, catalog.export_museval,
    catalog.import_museval, training.models, training.retrain, training.tune, mashup.mashup, worker.worker,
    catalog.demo, pages.report, pages.browse,
):  # fmt: skip
    main.add_command(verb)
