"""Writes docs/reference/api.md from the docstrings: `python docs/generate.py`. A test says when that is due."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import msgspec

import polystore
from polystore import sources

PAGE = Path(__file__).parent / "reference/api.md"
HEAD = """# API

Everything that `from polystore import ...` gives, and what moves records from and to files, made from the docstrings
by `docs/generate.py`. Errors have [a page of their own](errors.md).
"""
FILES = "`from polystore.sources import FileSource, export`; see [import and export](../how-to/import-and-export.md).\n"
CHAPTERS = {
    "Declaring": "entity new_id FullText Embedding Relation Edge Unique Index Measure FileRef Needs",
    "Opening": "HybridDataArchitecture Opening Transaction",
    "Records": "Collection KeyValue Ack Token Direction",
    "Conditions": "F Field Expr Order Condition",
    "Results": "WriteResult StoreStatus Stored Found Hit Related Explored ImportReport RepairReport",
    "Facts": "Point Log",
    "State": "State Limiter Allowance Channel Subscription",
    "Files": "Files SweepReport",
    "Untyped": "Parts Query ReadResult",
    "Embedders": "Embedder InlineEmbedder HashedEmbedder",
}
PARTED = ("polystore.architecture", "polystore.collection.")
"""Where classes are made of several parts, each with methods of its own."""
NOT_MADE = frozenset(
    {
        *("HybridDataArchitecture", "Opening", "Transaction", "Collection", "Token", "Found", "Field", "Expr", "Order"),
        *("Embedder", "InlineEmbedder", "Log", "State", "Limiter", "Channel", "Subscription", "Files"),
    }
)
"""Applications get these, or write them themselves; their constructors are not shown."""


def page() -> str:
    """The text of the page. Raises LookupError for a public name without a chapter or without a docstring."""
    chapters = {title: names.split() for title, names in CHAPTERS.items()}
    errors = [name for name in polystore.__all__ if is_error(name)]
    missing = set(polystore.__all__) ^ {name for names in (*chapters.values(), errors) for name in names}
    if missing:
        raise LookupError(f"in polystore.__all__ or in CHAPTERS, but not in both: {', '.join(sorted(missing))}")
    parts = [HEAD]
    for title, names in chapters.items():
        parts += [f"## {title}\n", *(section(name) for name in names)]
    parts += ["## Files\n", FILES, *(section(name, sources) for name in ("FileSource", "export"))]
    parts += ["## Errors\n", "".join(f"- [`{name}`](errors.md): {first_line(name)}\n" for name in errors)]
    return "\n".join(parts)


def is_error(name: str) -> bool:
    value = getattr(polystore, name)
    return isinstance(value, type) and issubclass(value, Exception)


def first_line(name: str) -> str:
    return described(name, getattr(polystore, name)).partition("\n")[0]


def section(name: str, module: types.ModuleType = polystore) -> str:
    value = getattr(module, name)
    if isinstance(value, type):
        shape = fields(value) or ([f"class {name}"] if name in NOT_MADE else [f"class {call(name, value)}"])
        return f"### {name}\n\n{code(shape)}\n{described(name, value)}\n{''.join(members(name, value))}"
    if inspect.isfunction(value):
        return f"### {name}\n\n{code([call(name, value)])}\n{described(name, value)}\n"
    text, source = alias(name)
    return f"### {name}\n\n{code([source])}\n{text}\n"


def described(name: str, value: Any) -> str:
    text = inspect.getdoc(value) if not isinstance(value, type) else inspect.cleandoc(value.__doc__ or "")
    if not text:
        raise LookupError(f"{name} has no docstring")
    return text


def members(owner: str, cls: type[Any]) -> list[str]:
    """The public methods and properties that the class itself has, and those of the parts it is made of."""
    out: list[str] = []
    parts = [base for base in cls.__mro__ if base.__module__.startswith(PARTED)] or [cls]
    for name, value in (item for part in parts for item in vars(part).items()):
        function: Any = getattr(value, "__func__", value)
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            out.append(f"\n#### {owner}.{name}\n\n{described(f'{owner}.{name}', value)}\n")
        elif inspect.isfunction(function) and (inspect.getdoc(function) or not is_plain(cls)):
            shown = code([("async " if is_async(function) else "") + call(name, function)])
            out.append(f"\n#### {owner}.{name}\n\n{shown}\n{described(f'{owner}.{name}', function)}\n")
    return out


def is_plain(cls: type[Any]) -> bool:
    """Values and conditions: methods that explain themselves need no docstring."""
    return issubclass(cls, (polystore.Field, polystore.Found, polystore.RepairReport, polystore.Token))


def is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def fields(cls: type[Any]) -> list[str] | None:
    """The fields of a struct or a typed dict, as their class shows them."""
    if not (issubclass(cls, msgspec.Struct) or typing.is_typeddict(cls)):
        return None
    lines: list[str] = [f"class {cls.__name__}:"]
    known = {one.name: one for one in msgspec.structs.fields(cls)} if issubclass(cls, msgspec.Struct) else {}
    for base in reversed(cls.__mro__):
        for name, hint in vars(base).get("__annotations__", {}).items():
            if name in known or typing.is_typeddict(cls):
                default = known[name].default if name in known else msgspec.NODEFAULT
                text = hint if isinstance(hint, str) else getattr(hint, "__forward_arg__", str(hint))
                source = text if default is msgspec.NODEFAULT else f"{text} = {default!r}"
                lines.append("    " + text_of(ast.parse(f"{name}: {source}").body[0]))
    return lines if len(lines) > 1 else [f"class {cls.__name__}()"]


def call(name: str, value: Any) -> str:
    """Name and parameters as the source has them, one to a line when they are many."""
    function = vars(value)["__init__"] if isinstance(value, type) else value
    node: Any = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    args = node.args
    plain = [shown(arg, default) for arg, default in zip_right(args.args, args.defaults)]
    if args.args and args.args[0].arg in ("self", "cls"):
        plain = plain[1:]
    named = [shown(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    lines = [*plain, *(["*"] if named else []), *named]
    result = "" if node.returns is None or isinstance(value, type) else f" -> {text_of(node.returns)}"
    one = f"{name}({', '.join(lines)}){result}"
    return one if len(one) <= 110 else f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + f"){result}"


def zip_right(args: list[ast.arg], defaults: list[ast.expr]) -> list[tuple[ast.arg, ast.expr | None]]:
    """The parameters with their defaults, which belong to the last ones."""
    return list(zip(args, [*[None] * (len(args) - len(defaults)), *defaults], strict=True))


def shown(arg: ast.arg, default: ast.expr | None) -> str:
    hint = f": {text_of(arg.annotation)}" if arg.annotation else ""
    return arg.arg + hint + (f" = {text_of(default)}" if default else "")


def text_of(node: ast.AST) -> str:
    return ast.unparse(node).replace("'", '"').replace("untyped.", "").replace("tracing.", "").replace("builtins.", "")


def alias(name: str) -> tuple[str, str]:
    """The docstring below a module's `NAME = ...`, and that line."""
    for module in ("model.queries", "results", "filters", "collection.scope"):
        source = inspect.getsource(importlib.import_module(f"polystore.{module}"))
        body = ast.parse(source).body
        for statement, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name:
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    return inspect.cleandoc(str(after.value.value)), f"{name} = {text_of(statement.value)}"
                if doc := inspect.getdoc(polystore.F) if name == "F" else None:
                    return doc, f'{name}.field, {name}["field"]'
    raise LookupError(f"{name} has no docstring below it")


def code(lines: list[str]) -> str:
    return "```py\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
