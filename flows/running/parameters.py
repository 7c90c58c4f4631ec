"""A flow's parameters are the fields of its settings: flat, checked before anything starts, described to Prefect."""

import functools
import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Annotated, Any, Generic, TypeVar

from prefect import Flow

from tasks.settings import Cli, Settings

Options = TypeVar("Options", bound=Settings)
Result = TypeVar("Result")


# What this process has checked already, before it asked Prefect for the run.
_checked: ContextVar[Settings | None] = ContextVar("checked", default=None)


class SettingsFlow(Flow, Generic[Options, Result]):
    """A Prefect flow that takes the fields of a settings class as parameters, and gives its function the settings.

    Called in Python it makes the settings and checks them, and so refuses what cannot be, before Prefect is asked
    for anything. A run of a deployment is refused by the API, which has the same bounds and choices, or as it begins.
    """

    def __init__(
        self,
        function: Callable[[Options], Result],
        settings: type[Options],
        name: str,
        check: Callable[[Options], object] = lambda options: None,
    ) -> None:
        self.settings = settings
        self.check = check

        @functools.wraps(function)
        def flat(*args: Any, **kwargs: Any) -> Result:
            options = settings(**self._named(args, kwargs))
            if _checked.get() != options:
                check(options)
            return function(options)

        flat.__signature__ = signature(settings, inspect.signature(function).return_annotation)
        flat.__annotations__ = {}
        flat.__doc__ = documented(inspect.getdoc(function) or "", settings)
        super().__init__(fn=flat, name=name, validate_parameters=False)

    def __call__(self, *args: Any, return_state: bool = False, wait_for: Any = None, **kwargs: Any) -> Result:
        """Run with the settings' fields by name, those without a default also by position.

        Raises:
            SettingsError: A value that cannot be.
            Exception: What the flow's check raises, before anything is started, or its function.
        """
        options = self.settings(**self._named(args, kwargs))
        self.check(options)
        token = _checked.set(options)
        try:
            return super().__call__(return_state=return_state, wait_for=wait_for, **options.values())
        finally:
            _checked.reset(token)

    def _named(self, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Positional arguments under their names, as Python does it."""
        names = list(signature(self.settings).parameters)
        if len(args) > len(names):
            raise TypeError(f"{self.name} takes {len(names)} arguments, not {len(args)}")
        return {**dict(zip(names, args, strict=False)), **kwargs}


def settings_flow(
    settings: type[Options], *, name: str, check: Callable[[Options], object] = lambda options: None
) -> Callable[[Callable[[Options], Result]], SettingsFlow]:
    """The decorator that makes a function of settings a flow over their fields.

    Args:
        settings: The class whose fields are the flow's parameters.
        name: The flow's name in Prefect.
        check: Raises what can be refused before a server, a cluster or a worker is up; takes no more than seconds.
    """
    return lambda function: SettingsFlow(function, settings, name, check)


def signature(settings: type[Settings], returns: Any = inspect.Signature.empty) -> inspect.Signature:
    """What a function over the fields of `settings` looks like."""
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
    """A docstring with the fields' descriptions as `Args:`, which editors and Prefect's form show."""
    fields = settings.model_fields.items()
    return "\n".join([text, "", "Args:", *(f"    {name}: {field.description}" for name, field in fields)])
