"""The settings that both nodes have: where their values come from, and which of them go together."""

import os
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from restpipe.config.binds import WebBind
from restpipe.config.fields import NodeFields
from restpipe.config.sources import EnvironmentSource, UserModuleSource
from restpipe.config.table import rows, shown
from restpipe.config.upstreams import UpstreamAddress

Service = TypeVar("Service", UpstreamAddress | None, str)


class NodeSettings(NodeFields):
    """What both nodes can be told. Frozen: a node's settings do not change while it runs.

    An instance made directly reads the environment and the user config module too, as the loaders do; arguments win.
    """

    node: ClassVar[Literal["server", "client"]]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options beat the environment, which beats the user config module, which beats the defaults."""
        return init_settings, EnvironmentSource(settings_cls), UserModuleSource(settings_cls)

    @classmethod
    def variable(cls, field: str) -> str:
        """Return the environment variable of a setting; the preferred one where it has two."""
        return rows(cls)[field].variables[0]

    @property
    def files_shown(self) -> str:
        """What is said of the directory that is served."""
        return f"{self.files} at files//PATH, {'read and write' if self.files_writable else 'read only'}"

    @property
    def key_path(self) -> Path:
        """File of the private key."""
        return self.cert_path / self.key_filename

    @property
    def crt_path(self) -> Path:
        """File of the certificate."""
        return self.cert_path / self.crt_filename

    @property
    def ca_crt_path(self) -> Path:
        """File of the CA certificate."""
        return self.cert_path / self.ca_crt_filename

    @property
    def crl_path(self) -> Path:
        """File of the CA's revocation list."""
        return self.cert_path / self.crl_filename

    # A rule between two settings is checked by the later of them: pydantic has validated the other by then, and left it
    # out of `info.data` if it was wrong.

    @field_validator("heartbeat_timeout_s")
    @classmethod
    def _timeout_exceeds_interval(cls, timeout: float, info: ValidationInfo) -> float:
        interval = info.data.get("heartbeat_interval_s", 0)
        if timeout <= interval:
            raise ValueError(f"should exceed {cls.variable('heartbeat_interval_s')}, which is {shown(interval)}")
        return timeout

    @field_validator("upstream", "asgi")
    @classmethod
    def _one_serves(cls, service: Service, info: ValidationInfo) -> Service:
        handler = info.data.get("event_handler")
        if service and handler not in (None, cls.model_fields["event_handler"].default):
            raise ValueError(
                f"should be empty, or {cls.variable('event_handler')}, which is {handler}: one of them serves"
            )
        if service and info.data.get("upstream"):
            raise ValueError(f"should be empty, or {cls.variable('upstream')}: one of them serves")
        return service

    @field_validator("files")
    @classmethod
    def _nothing_serves_everything(cls, files: Path | None, info: ValidationInfo) -> Path | None:
        for field in ("upstream", "asgi"):
            if files and info.data.get(field):
                raise ValueError(f"should be empty, or {cls.variable(field)}: what it names serves everything")
        return files

    @field_validator("files_writable")
    @classmethod
    def _files_can_be_written(cls, writable: bool, info: ValidationInfo) -> bool:
        files = info.data.get("files", Path())  # absent: it was wrong, so one was meant
        if writable and files is None:
            raise ValueError(f"should be 0 unless {cls.variable('files')} names a directory")
        if writable and "files" in info.data and not os.access(files, os.W_OK):
            raise ValueError(
                f"should be 0 unless the user of this node may write to {files}; a service needs ReadWritePaths={files}"
            )
        return writable

    @field_validator("request_timeout_s")
    @classmethod
    def _timeout_within_maximum(cls, timeout: float, info: ValidationInfo) -> float:
        maximum = info.data.get("max_request_timeout_s", timeout)
        if timeout > maximum:
            raise ValueError(f"should not exceed {cls.variable('max_request_timeout_s')}, which is {shown(maximum)}")
        return timeout

    @field_validator("web_bind")
    @classmethod
    def _only_a_token_opens_the_web(cls, bind: WebBind | None, info: ValidationInfo) -> WebBind | None:
        token = info.data.get("web_token")  # absent: it was wrong, so one was meant
        if bind and not bind.is_loopback and token is not None and not token.get_secret_value():
            raise ValueError(
                f"should be reachable from this machine only, such as 127.0.0.1:8080 or unix:/path, "
                f"unless {cls.variable('web_token')} is set"
            )
        return bind
