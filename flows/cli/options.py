"""Click options made from settings classes: type, choices, bounds, default and help come from the fields."""

import datetime
import functools
import json
import os
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
import click
from pydantic.fields import FieldInfo

from flows.running import environment
from flows.running.environment import FORCED
from flows.running.progress import QUIET
from tasks.settings import Settings, SettingsError

Options = TypeVar("Options", bound=Settings)


def with_settings(settings: type[Options]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator that gives a command the fields of a settings class as arguments and options, and --prefect.

    A value that a field cannot have is wrong usage, exit code 2.

    Args:
        settings: The class. The command gets one object of it as `options`, in place of the fields.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def checked(**values: Any) -> Any:
            fields = {name: values.pop(name) for name in settings.model_fields if name in values}
            return command(options=chosen(settings, fields), **values)

        return under_prefect(with_parameters(settings)(checked))

    return decorate


def under_prefect(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --prefect, which must be known before the flow's module is imported.

    Args:
        command: The command's function, which does not see the option.
    """

    def force(_context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            os.environ[FORCED] = "1"

    text = "Run under Prefect, with an embedded server where none is configured."
    return click.option("--prefect", is_flag=True, expose_value=False, callback=force, help=text)(command)


def with_parameters(
    settings: type[Settings], *, only: Collection[str] = (), without: Collection[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorator that gives a command the fields of a settings class as plain keyword arguments.

    Args:
        settings: The class.
        only: The names of the fields to offer; all where empty.
        without: The names of fields to leave out.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(settings.ordered()):
            if (name in only or not only) and name not in without and not settings.cli(name).hidden:
                parameter(settings, name)(command)
        return command

    return decorate


def chosen(settings: type[Options], values: Mapping[str, Any]) -> Options:
    """The settings that result from click's values.

    Args:
        settings: The class to make.
        values: Values by the names of the command's parameters; None for the default. Other names are ignored.

    Raises:
        UsageError: A field has a value that it cannot have, or is missing.
    """
    taken = {name: _unpacked(settings, name, value) for name, value in values.items() if name in settings.model_fields}
    try:
        return settings(**{name: value for name, value in taken.items() if value is not None})
    except SettingsError as error:
        raise click.UsageError(str(error)) from error


def parameter(settings: type[Settings], name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The click decorator for one field: an argument or an option, with its type, bounds, default and help.

    Args:
        settings: The class.
        name: The field's name, which becomes the parameter's.
    """
    field, cli = settings.model_fields[name], settings.cli(name)
    kind = _kind(field.annotation)
    if cli.argument:
        several: dict[str, Any] = {"nargs": -1, "required": field.is_required()} if cli.several else {}
        return click.argument(name, type=_click_type(kind, field), metavar=cli.metavar, **several)
    attributes: dict[str, Any] = {"help": field.description, "metavar": cli.metavar}
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    flags = cli.flags or (f"--{name.replace('_', '-')}",)
    if kind is bool:
        if default and not any("/" in flag for flag in flags):
            flags = (f"{flags[0]}/--no-{flags[0].removeprefix('--')}", *flags[1:])
        attributes |= {"is_flag": True, "default": default, "show_default": bool(default) or "/" in flags[0]}
    elif _several(kind):
        attributes |= {"multiple": True, "required": field.is_required()} if not cli.commas else {}
    else:
        attributes |= {"type": _click_type(kind, field), "required": field.is_required()}
        if default is not None:
            attributes |= {"default": default, "show_default": True}
    return click.option(*flags, name, **attributes)


def _kind(annotation: Any) -> Any:
    """The type of a field, the first where there are several, without None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in get_args(annotation) if kind is not type(None))
    return annotation


def _several(kind: Any) -> bool:
    return get_origin(kind) in (tuple, dict)


def _click_type(kind: Any, field: FieldInfo) -> click.ParamType:
    if get_origin(kind) is Literal:
        return click.Choice([str(choice) for choice in get_args(kind)], case_sensitive=False)
    if kind is datetime.datetime:
        return click.DateTime()
    if kind in (int, float):
        bounds: dict[str, Any] = {}
        for item in field.metadata:
            match item:
                case annotated_types.Ge():
                    bounds["min"] = item.ge
                case annotated_types.Gt():
                    bounds |= {"min": item.gt, "min_open": True}
                case annotated_types.Le():
                    bounds["max"] = item.le
        if not bounds:
            return click.INT if kind is int else click.FLOAT
        return (click.IntRange if kind is int else click.FloatRange)(**bounds)
    return click.STRING


def _unpacked(settings: type[Settings], name: str, value: Any) -> Any:
    """Click's value in the form that the field takes."""
    kind = _kind(settings.model_fields[name].annotation)
    if get_origin(kind) is dict:
        return dict(_pair(text) for text in value)
    if settings.cli(name).several and len(value) == 1:
        return value[0]
    if settings.cli(name).commas and isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return value


def with_output(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that set how much it says: --json (as `as_json`), --quiet, --verbose.

    Args:
        command: The command's function, which sees `as_json` alone.
    """
    command = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON, for scripts.")(command)
    command = click.option(
        "--quiet", is_flag=True, expose_value=False, is_eager=True, callback=_be_quiet, help="Show no progress."
    )(command)
    return with_verbose(command)


def with_verbose(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --verbose.

    Args:
        command: The command's function, which does not see the option.
    """
    return click.option(
        "--verbose", is_flag=True, expose_value=False, is_eager=True, callback=_be_verbose,
        help="Show tracebacks and the workers' logs, as UNBRAID_LOG=1 does.",
    )(command)  # fmt: skip


def _be_quiet(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        os.environ[QUIET] = "1"


def _be_verbose(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        environment.be_verbose()


def _pair(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as JSON where it is some. Raises UsageError."""
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.UsageError(f"--set takes NAME=VALUE, not {text}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
