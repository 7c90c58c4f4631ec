"""A flow's parameters are the fields of its settings: flat, checked before anything starts, described to Prefect."""

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from flows.running.environment import with_prefect
from tasks.settings import Cli, Settings

Options = TypeVar("Options", bound=Settings)
Checked = TypeVar("Checked")
Result = TypeVar("Result")


class SettingsFlow(Generic[Options, Checked, Result]):
    """A flow over the fields of a settings class: its check, then its function, which gets what the check worked out.

    Args:
        function: The flow, a function of the settings and of what `check` returned for them.
        settings: The class whose fields are the flow's parameters.
        name: The flow's name.
        check: Raises what can be refused before anything is started, and returns what it had to read for that.
    """

    def __init__(
        self,
        function: Callable[[Options, Checked], Result],
        settings: type[Options],
        name: str,
        check: Callable[[Options], Checked],
    ) -> None:
        self.function, self.settings, self.name, self.check = function, settings, name, check
        self.__signature__ = signature(settings, inspect.signature(function).return_annotation)
        self.__doc__ = documented(inspect.getdoc(function) or "", settings)

    def options(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Options:
        """The settings of a call; positional arguments get their names in the order of the flow's signature.

        Args:
            args: The call's positional arguments.
            kwargs: Its keyword arguments, the settings' fields by name.

        Raises:
            SettingsError: A field is unknown, missing, or has a value that it cannot have.
            TypeError: There are too many arguments.
        """
        names = list(self.__signature__.parameters)
        if len(args) > len(names):
            raise TypeError(f"{self.name} takes {len(names)} arguments, not {len(args)}")
        return self.settings(**{**dict(zip(names, args, strict=False)), **kwargs})


class PlainFlow(SettingsFlow[Options, Checked, Result]):
    """A flow that runs as the function it is, where no Prefect server is configured: Prefect would take longer to
    start than a short song to separate.

    With a server `settings_flow` makes a `flows.running.prefect_flow.PrefectFlow` of the same function.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Result:
        """Run with the settings' fields by name, those without a default also by position.

        Raises:
            SettingsError: A value that cannot be.
            Exception: What the flow's check raises, before anything is started, or its function.
        """
        options = self.options(args, kwargs)
        return self.function(options, self.check(options))

    fn = __call__


def settings_flow(
    settings: type[Options], *, name: str, check: Callable[[Options], Checked]
) -> Callable[[Callable[[Options, Checked], Result]], PlainFlow[Options, Checked, Result]]:
    """The decorator that makes a function of settings a flow over their fields.

    Args:
        settings: The class whose fields are the flow's parameters.
        name: The flow's name in Prefect.
        check: Raises what can be refused before a server, a cluster or a worker is up; takes no more than seconds.
            What it returns is the function's second argument.

    Returns:
        A decorator. It makes a Prefect flow where a Prefect server is configured and a plain one otherwise.
    """
    if not with_prefect():
        return lambda function: PlainFlow(function, settings, name, check)
    from flows.running.prefect_flow import PrefectFlow

    return lambda function: PrefectFlow(function, settings, name, check)  # type: ignore[return-value]


def signature(settings: type[Settings], returns: Any = inspect.Signature.empty) -> inspect.Signature:
    """The signature of a function over the fields of `settings`.

    Args:
        settings: The class whose fields are the parameters.
        returns: The return annotation.
    """
    parameters = []
    for name in settings.ordered():
        field = settings.model_fields[name]
        kind: Any = field.annotation
        for item in field.metadata:
            if not isinstance(item, Cli):
                kind = Annotated[kind, item]
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
        )
    return inspect.Signature(parameters, return_annotation=returns)


def documented(text: str, settings: type[Settings]) -> str:
    """A docstring with the fields' descriptions as `Args:`, which editors and Prefect's form show.

    Args:
        text: A flow's docstring, without `Args:`.
        settings: The class whose fields are the flow's parameters.

    Returns:
        The docstring with `Args:` before its other sections.
    """
    fields = settings.model_fields.items()
    arguments = "\n".join(["Args:", *(f"    {name}: {field.description}" for name, field in fields)])
    summary, *sections = re.split(r"\n\n(?=(?:Returns|Raises):\n)", text)
    return "\n\n".join([summary, arguments, *sections])
