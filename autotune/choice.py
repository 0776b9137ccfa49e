"""A plugin by name, with settings: "cost-model", "cost-model:epsilon=0.2,pool=1024".

Samplers, cost models and runners are chosen so. Each is a class or a function, called by keyword
with those of the things that are at hand (a seed, a target) that its signature names. Its other
parameters that have a number, a text or a truth value for their default are its settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from autotune.errors import InputError
from search_spaces.plugins import Kind, names, plugin_named

T = TypeVar("T")
Value = bool | int | float | str
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Factories(Kind[Callable[..., T]]):
    """A kind of plugin that is made for each use; ``given`` names what it may be made of."""

    given: tuple[str, ...] = ()

    def choose(self, text: str) -> Choice[T]:
        """Read "NAME" or "NAME:SETTING=VALUE,...". Raises ``InputError``, also for a plugin that
        failed to load."""
        name, _, rest = text.partition(":")
        plugin = plugin_named(self, name)
        if plugin is None:
            known = ", ".join(names(self)) or "none"
            raise InputError(f"there is no {self.title} {name!r}: choose one of {known}")
        if plugin.found is None:
            raise InputError(
                f"the {plugin.origin} does not load ({plugin.error}): correct or uninstall "
                "the package, or choose another"
            )
        defaults = self._defaults(plugin.found)
        options: dict[str, Value] = {}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            if key not in defaults:
                known = ", ".join(defaults) or "nothing"
                raise InputError(f"{name} has no setting {key!r}: what can be set is {known}")
            options[key] = _value(name, key, value, type(defaults[key]))
        return Choice(self.title, name, plugin.found, options)

    def _defaults(self, factory: Callable[..., Any]) -> dict[str, Value]:
        parameters = inspect.signature(factory).parameters
        return {
            name: parameter.default
            for name, parameter in parameters.items()
            if isinstance(parameter.default, bool | int | float | str) and name not in self.given
        }


@dataclass(frozen=True)
class Choice(Generic[T]):
    """A plugin that was chosen, with its settings."""

    kind: str
    name: str
    factory: Callable[..., T] = field(repr=False)
    options: Mapping[str, Value] = field(default_factory=dict)

    def takes(self, name: str) -> bool:
        """Whether it is made of what is called ``name``."""
        return name in inspect.signature(self.factory).parameters

    def make(self, **given: Any) -> T:
        """Make it of those of ``given`` that it takes. Raises ``InputError`` for settings that it
        refuses by a ``ValueError``."""
        taken = {name: value for name, value in given.items() if self.takes(name)}
        try:
            return self.factory(**taken, **self.options)
        except ValueError as error:
            if not self.options:
                raise
            raise InputError(f"the {self.kind} {self.name} says: {error}") from error


def factory(contract: Callable[[], type], *given: str) -> Callable[[Any, str], Any]:
    """Accepts functions, and classes of what ``contract`` returns, that need nothing but ``given``.

    ``contract`` is called when one is loaded: it may import what is heavy.
    """

    def accept(found: Any, name: str) -> Any:
        if not callable(found):
            raise TypeError(f"{found!r} cannot be called")
        if isinstance(found, type) and not issubclass(found, contract()):
            raise TypeError(f"{found.__name__} is no {contract().__name__}")
        for parameter in inspect.signature(found).parameters.values():
            named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
            if named and parameter.default is parameter.empty and parameter.name not in given:
                known = ", ".join(given)
                raise TypeError(f"it needs {parameter.name!r}, and what it is given are {known}")
        return found

    return accept


def _value(name: str, key: str, text: str, kind: type) -> Value:
    try:
        return _TRUTHS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise InputError(f"{key} of {name} must be {_WANTED[kind]}, not {text!r}") from None
