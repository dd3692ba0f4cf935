"""Importing what settings name: event handlers, connection state events, resolvers, the user config module."""

import contextlib
import difflib
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from restpipe.exceptions import ConfigError


def import_class(path: str, variable: str) -> type:
    """Import a class by its dotted path, from the current directory too.

    Args:
        path: such as `package.module.Class`.
        variable: the setting that names it, for messages.

    Raises:
        ConfigError: there is no such module, importing it raised (then that is the cause), it has no such attribute, or
            the attribute is not a class.
    """
    module_name, _, name = path.rpartition(".")
    module = import_module(module_name, f"{variable}={path!r}")
    try:
        found = getattr(module, name)
    except AttributeError:
        hint = close_match(name, [known for known, value in vars(module).items() if isinstance(value, type)])
        raise ConfigError(f"{variable}={path!r}: {_described(module)} has no class {name!r}{hint}") from None
    if not isinstance(found, type):
        raise ConfigError(f"{variable}={path!r}: should be a class, not {_article(type(found).__name__)}")
    return found


def import_application(path: str, variable: str) -> Any:
    """Import an ASGI application, from the current directory too.

    Args:
        path: such as `package.module:app`.
        variable: the setting that names it, for messages.

    Raises:
        ConfigError: there is no such module, importing it raised (then that is the cause), it has no such attribute, or
            that cannot be called as an ASGI application is.
    """
    module_name, _, names = path.partition(":")
    found: Any = import_module(module_name, f"{variable}={path!r}")
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            described = _described(found) if isinstance(found, ModuleType) else f"{type(found).__name__} in {path!r}"
            hint = close_match(name, [known for known in vars(found) if not known.startswith("_")])
            raise ConfigError(f"{variable}={path!r}: {described} has no {name!r}{hint}") from None
    try:
        inspect.signature(found).bind({}, None, None)
    except (TypeError, ValueError):
        what = f"{variable}={path!r}: should be an ASGI application, which is called with scope, receive and send"
        raise ConfigError(f"{what}: not {_article(type(found).__name__)}") from None
    return found


def make_object(path: str, variable: str) -> object:
    """Import a class by its dotted path, and make an object of it, without arguments.

    Args:
        path: such as `package.module.Class`.
        variable: the setting that names it, for messages.

    Raises:
        ConfigError: the class cannot be imported, or making the object raised; then that is the cause.
    """
    found = import_class(path, variable)
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{variable}={path!r}: making an object of it failed: {_summary(error)}") from error


def import_module(name: str, setting: str) -> ModuleType:
    """Import a module, from the current directory too.

    Args:
        name: its dotted name.
        setting: the setting that names it and its value, for messages.

    Raises:
        ConfigError: there is no such module, or importing it raised; then that is the cause.
    """
    _make_current_directory_importable()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script without a guard ends with sys.exit()
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            message = f"no module named {error.name!r}, neither installed nor in {Path.cwd()}"
            raise ConfigError(f"{setting}: {message}") from None
        raise ConfigError(f"{setting}: importing {name!r} failed: {_summary(error)}") from error


def refresh_module(name: str, setting: str) -> None:
    """Import a module anew, itself alone; one that is not imported yet is left as it is.

    Args:
        name: its dotted name.
        setting: the setting that names it and its value, for messages.

    Raises:
        ConfigError: there is no such module any more, or importing it raised. What was imported before stays.
    """
    before = sys.modules.pop(name, None)
    if before is None:
        return
    # A module that was compiled is told from a newer one by its size and by whole seconds.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec = before.__spec__
    if spec is not None and spec.cached is not None:
        with contextlib.suppress(OSError):
            Path(spec.cached).unlink()
    try:
        import_module(name, setting)
    except BaseException:
        sys.modules[name] = before
        raise
    finally:
        sys.dont_write_bytecode = writes


def close_match(name: str, known: list[str]) -> str:
    """Return "; did you mean ...?" where one of the known names resembles `name`, otherwise an empty text."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _make_current_directory_importable() -> None:
    """Let modules of the current directory be found, after everything installed.

    Last, because a file that happens to lie where a service was started must not replace an installed module.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()


def _described(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return f"module {module.__name__!r} ({file})" if file else f"module {module.__name__!r}"


def _summary(error: BaseException) -> str:
    """Describe an exception in one line, with the place in the user's code that raised it."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = traceback.extract_tb(error.__traceback__)
    places = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    if isinstance(error, SyntaxError) or not places:  # a syntax error names its place itself
        return text
    return f"{text} ({places[-1].filename}, line {places[-1].lineno})"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
