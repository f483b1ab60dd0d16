"""The classes that an application declares, seen alike: dataclasses, msgspec.Structs, pydantic models, and mapped
SQLAlchemy classes."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import msgspec

if TYPE_CHECKING:
    from polystore.mapped import MappedClass


class UnsupportedType(Exception):
    """A type hint that no field can have; `str()` says which."""


def is_pydantic(cls: Any) -> bool:
    """True for a pydantic model class; pydantic itself is not imported."""
    return isinstance(cls, type) and hasattr(cls, "model_fields") and hasattr(cls, "model_validate")


def mapped_class(cls: Any) -> MappedClass[Any] | None:
    """The description of a mapped SQLAlchemy class; None for any other type. SQLAlchemy is imported for those only.
    Raises UnsupportedType, EntityError."""
    if "__mapper__" not in getattr(cls, "__dict__", ()):
        return None
    from polystore.mapped import MappedClass

    return MappedClass(cls)


def members_of(hint: Any) -> dict[str, Any] | None:
    """Field name -> hint of a dataclass, msgspec.Struct, pydantic model (generic ones with their arguments) or mapped
    class; None for any other type."""
    cls: Any = get_origin(hint) or hint
    if not isinstance(cls, type):
        return None
    if mapped := mapped_class(cls):
        return mapped.hints()
    if dataclasses.is_dataclass(cls):
        names = [f.name for f in dataclasses.fields(cls)]
    elif issubclass(cls, msgspec.Struct):
        names = list(cls.__struct_fields__)
    elif is_pydantic(cls):
        names = list(typing.cast(Any, cls).model_fields)
    else:
        return None
    hints = typing.get_type_hints(typing.cast(Any, cls), include_extras=True)
    arguments = dict(zip(_parameters(cls), get_args(hint), strict=False))
    return {name: _bound(hints[name], arguments) for name in names}


def _parameters(cls: Any) -> tuple[Any, ...]:
    return getattr(cls, "__parameters__", ())


def _bound(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    """The hint with the type variables of a generic class replaced by its arguments."""
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    free = [p for p in _parameters(hint) if p in arguments] if arguments else []
    return hint[tuple(arguments.get(p, p) for p in hint.__parameters__)] if free else hint


def check_class(cls: type[Any]) -> None:
    """Raises UnsupportedType for a class whose values could not be read back from their fields by name."""
    if mapped_class(cls):
        return
    if dataclasses.is_dataclass(cls):
        if any(isinstance(hint, dataclasses.InitVar) for hint in typing.get_type_hints(cls).values()):
            raise UnsupportedType(f"{cls.__name__} has an InitVar, which is not kept; make it a field")
    elif issubclass(cls, msgspec.Struct):
        if cls.__struct_config__.array_like or cls.__struct_encode_fields__ != cls.__struct_fields__:
            raise UnsupportedType(
                f"{cls.__name__} uses array_like= or rename=; records are kept by field name, drop it"
            )
    elif is_pydantic(cls) and typing.cast(Any, cls).model_config.get("extra") == "allow":
        raise UnsupportedType(f"{cls.__name__} has extra='allow'; fields that are not declared are not kept, drop it")


class Constant(msgspec.Struct, frozen=True):
    """A default that is a value, not a function."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def defaults_of(cls: type[Any]) -> dict[str, Callable[[], Any]]:
    """Field name -> how to make its default, for the fields that have one."""
    found: list[tuple[str, Any, Any]] = []
    if mapped := mapped_class(cls):
        return mapped.defaults()
    if dataclasses.is_dataclass(cls):
        found = [(f.name, f.default, f.default_factory) for f in dataclasses.fields(cls)]
    elif issubclass(cls, msgspec.Struct):
        found = [(s.name, s.default, s.default_factory) for s in msgspec.structs.fields(cls)]
    elif is_pydantic(cls):
        for name, info in typing.cast(Any, cls).model_fields.items():
            if info.default_factory is None and not info.is_required():
                found.append((name, info.default, None))
            elif info.default_factory is not None and not info.default_factory_takes_validated_data:
                found.append((name, dataclasses.MISSING, info.default_factory))
    out: dict[str, Callable[[], Any]] = {}
    for name, default, factory in found:
        if default is not dataclasses.MISSING and default is not msgspec.NODEFAULT:
            out[name] = Constant(default)
        elif factory is not None and factory is not dataclasses.MISSING and factory is not msgspec.NODEFAULT:
            out[name] = factory
    return out
