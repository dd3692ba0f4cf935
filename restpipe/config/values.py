"""Types of settings: each says what its text may be, in the words of the message that refuses it."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from restpipe.config.binds import WebBind, parse_host, parse_web_bind
from restpipe.config.upstreams import UpstreamAddress, parse_upstream
from restpipe.identity.names import NamePatterns, RelayRules

# The protocol carries a deadline as 32 bits of milliseconds, about 49 days.
MAX_SECONDS = 30 * 24 * 3600


def _optional_host(text: str) -> str:
    return parse_host(text) if text.strip() else ""


def _given_parts(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _parts(value: object) -> object:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _names(patterns: tuple[str, ...]) -> tuple[str, ...]:
    return NamePatterns(patterns).patterns


def _rules(rules: tuple[str, ...]) -> tuple[str, ...]:
    return RelayRules(rules).rules


def _web_bind(value: object) -> object:
    return parse_web_bind(value) if isinstance(value, str) else value


def _upstream(value: object) -> object:
    return parse_upstream(value) if isinstance(value, str) else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _octal(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError("should be an octal file mode such as 0660") from None


def _file_mode(mode: int) -> int:
    if not 0 <= mode <= 0o777:
        raise ValueError("should be at most 0777")
    return mode


def _directory(value: object) -> object:
    if value == "":
        raise ValueError("should name a directory")
    return value


def _existing_directory(path: Path | None) -> Path | None:
    if path is None:
        return None
    path = path.expanduser().absolute()
    if not path.exists():
        raise ValueError(f"should be a directory that exists: make it with `mkdir -p {shlex.quote(str(path))}`")
    if not path.is_dir():
        raise ValueError("should be a directory")
    if not os.access(path, os.R_OK | os.X_OK):
        raise ValueError("should be a directory that the user of this node may read")
    return path


def _file_name(text: str) -> str:
    if not text or text.endswith("/"):
        raise ValueError("should name a file")
    return text


def _path_of_class(value: object) -> object:
    """Accept the class itself where a user config module has it at hand."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else value


def _class_path(text: str) -> str:
    if "." not in text or not all(part.isidentifier() for part in text.split(".")):
        raise ValueError("should be the dotted path of a class, such as package.module.Class")
    return text


def _optional_class_path(text: str) -> str:
    return _class_path(text) if text else ""


def _optional_module(text: str) -> str:
    if text and not all(part.isidentifier() for part in text.split(".")):
        raise ValueError("should be the dotted name of a module, such as package.module")
    return text


def _asgi_path(text: str) -> str:
    module, colon, name = text.partition(":")
    if text and not (colon and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))):
        raise ValueError("should name an ASGI application, such as package.module:app")
    return text


def _token(secret: SecretStr) -> SecretStr:
    if not all("!" <= character <= "~" for character in secret.get_secret_value()):
        raise ValueError("should consist of printable ASCII characters without blanks")
    return secret


LogFormat = Literal["text", "json"]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Bytes = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
ListeningPort = Annotated[int, Field(ge=0, le=65535)]
OptionalPort = Annotated[Port | None, BeforeValidator(_empty_is_none)]
Host = Annotated[str, AfterValidator(parse_host)]
OptionalHost = Annotated[str, AfterValidator(_optional_host)]
NamesOrPatterns = Annotated[tuple[str, ...], BeforeValidator(_parts), AfterValidator(_names)]
Rules = Annotated[tuple[str, ...], BeforeValidator(_given_parts), AfterValidator(_rules)]
Hosts = Annotated[tuple[Host, ...], BeforeValidator(_given_parts)]
OptionalWebBind = Annotated[WebBind | None, BeforeValidator(_web_bind)]
OptionalUpstream = Annotated[UpstreamAddress | None, BeforeValidator(_upstream)]
FileMode = Annotated[int, BeforeValidator(_octal), AfterValidator(_file_mode)]
Directory = Annotated[Path, BeforeValidator(_directory), AfterValidator(Path.expanduser)]
OptionalExistingDirectory = Annotated[Path | None, BeforeValidator(_empty_is_none), AfterValidator(_existing_directory)]
FileName = Annotated[str, AfterValidator(_file_name)]
ClassPath = Annotated[str, BeforeValidator(_path_of_class), AfterValidator(_class_path)]
OptionalClassPath = Annotated[str, BeforeValidator(_path_of_class), AfterValidator(_optional_class_path)]
OptionalAsgiPath = Annotated[str, AfterValidator(_asgi_path)]
OptionalModule = Annotated[str, AfterValidator(_optional_module)]
Token = Annotated[SecretStr, AfterValidator(_token)]
