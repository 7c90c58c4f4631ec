"""The command line: `unbraid VERB …`, thin over the flows.

Heavy imports (prefect, torch) happen inside the verbs, so that `unbraid --help` is quick.
"""

import importlib.abc
import os
import shlex
import sys
from signal import SIGTERM
from typing import NoReturn

import click

from flows.cli import catalog, mashup, pages, training, worker
from flows.cli.console import printable
from flows.running import signals
from flows.running.environment import is_quiet
from flows.running.orphans import own_is_lost
from tasks.settings import SettingsError

EXIT_ERROR = 1  # the run did not start or did not finish
EXIT_USAGE = 2
_GOING_ON = ("separate", "ingest", "train", "retrain", "mashup")  # run again, these do what is left


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """As if pandas were not installed: Arrow looks for it, which takes half of a short command's time, and no verb
    needs it in this process.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not imported by the command line", name=fullname)
        return None


class _Sentences(click.Group):
    """Every error of ours as one sentence and an exit code; no traceback unless UNBRAID_LOG is set (`--verbose`)."""

    def main(self, *args, **kwargs):
        # A user's own tasks.py or model/ in the present folder must not be taken for ours by what this process starts.
        os.environ["PYTHONSAFEPATH"] = "1"
        if signals.in_program():
            sys.meta_path.insert(0, _WithoutPandas())
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if own_is_lost():
                _leave(end.code)
            raise
        except Exception as error:
            if not is_quiet():
                raise
            _say(_sentence(error))
            code = EXIT_USAGE if isinstance(error, SettingsError) else EXIT_ERROR
            if own_is_lost():
                _leave(code)
            sys.exit(code)

    def invoke(self, ctx):
        signals.sentence = lambda: printable(stopped(sys.argv[1:]))
        signals.install()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            signals.leave()
        except BaseException as error:
            if signals.has_come():
                signals.leave()
            if type(error).__name__ == "TerminationSignal":  # what SIGTERM is under Prefect
                signals.leave(SIGTERM)
            raise


def _leave(code: object) -> NoReturn:
    """End this process without Prefect's threads, which would tell a server that is gone of event after event."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else EXIT_ERROR if code else 0)


def stopped(arguments: list[str]) -> str:
    """The sentence for a stopped run; where the verb can go on, with the command that does.

    Args:
        arguments: The command line's arguments after the program's name, the verb first.
    """
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
    return f"internal error, {type(error).__name__}: {error}; UNBRAID_LOG=1 shows where, please report it"


def _say(sentence: str) -> None:
    click.echo(f"unbraid: {printable(sentence)}", err=True)


@click.group(cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="unbraid")
def main() -> None:
    """Take music catalogs apart: ingest datasets, train networks, separate tracks into stems, score them.

    Exit codes: 0 all is well, 3 finished with failed tracks (each is a row that says why), 1 did not
    start or finish, 2 wrong usage, 4 a mash-up's songs do not fit, 130 stopped by Ctrl-C (143 SIGTERM, 129 SIGHUP).
    """


for verb in (
    training.ingest, training.train, catalog.separate, catalog.prune, catalog.evaluate, catalog.query,
    catalog.export_museval, catalog.import_museval, training.models, training.retrain, training.tune, mashup.mashup,
    worker.worker, catalog.demo, pages.report, pages.browse, pages.explore, pages.spectrogram,
):  # fmt: skip
    main.add_command(verb)
