"""Settings of all methods in one place: the part of a settings file in which each method has its name."""

from __future__ import annotations

from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from chrep_model.errors import SettingsError
from chrep_model.methods.base import Method
from chrep_model.methods.registry import every_method, find, names


class MethodSettings(BaseModel):
    """Settings of the methods, each under the method's name; other names are refused.

    A method without settings has no place here. Settings that are not given are None; the method then
    chooses them on a held-out training section, see `methods.settings_choice`.
    """

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _known(self) -> Self:
        """Validate what is under a method's name, and refuse all other names."""
        fields: dict[str, Any] = {
            method.name: (method.settings_class | None, None)
            for method in every_method()
            if method.settings_class is not None
        }
        known = create_model("MethodSettings", __config__=ConfigDict(extra="forbid"), **fields)
        self.__pydantic_extra__ = dict(known(**(self.model_extra or {})))
        return self

    @model_serializer(mode="wrap")
    def _methods_first(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Put the methods before all other settings, as files have them."""
        values = dump(self)
        return {name: values[name] for name in self.model_extra or {} if name in values} | values

    def of(self, method: str) -> Any:
        """Return the settings of a method; None if none were given."""
        return (self.model_extra or {}).get(method)


def make_method(name: str, settings: MethodSettings | None = None) -> Method:
    """Return a method by name, under its own of the `settings`.

    Raises
    ------
    SettingsError
        There is no such method.
    """
    if (method := find(name)) is None:
        raise SettingsError(
            f"there is no method called {name!r}", remedy=f"Choose from {', '.join(names())}."
        )
    return method(None if settings is None else settings.of(name))
