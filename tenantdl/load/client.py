"""A client for operators: what `tenantdl status`, `top`, `infer`, `load`… ask of a running daemon.

Plain blocking HTTP, one connection a call. Everything that goes wrong is a UserError that names the
daemon: it is not ours to say whose fault it is.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import msgspec

from tenantdl.bundle.manifest import Tensor
from tenantdl.errors import UserError
from tenantdl.load import protocol
from tenantdl.load.protocol import HEADER_LENGTH, Array
from tenantdl.load.status import FORMAT, STATUS_BYTES_MAX, Status

_ANSWER_BYTES_MAX = 1024**3
_PIECE = 1024**2


@dataclass(frozen=True, slots=True)
class Client:
    """A daemon at `url`. `token`: an operator's or a tenant's; calls wait for `timeout_s`."""

    url: str
    token: str | None = None
    timeout_s: float = 60.0

    def status(self, since: int | None = None) -> Status:
        """What the daemon says of itself; blocks from number `since` on."""
        query = "" if since is None else f"?since={since}"
        body = self._ask("GET", f"/status{query}", most=STATUS_BYTES_MAX)
        try:
            status = msgspec.json.decode(body, type=Status)
        except msgspec.MsgspecError as error:
            raise UserError(f"does not answer like a tenantdl: {error}", where=self.url) from error
        if status.format != FORMAT:
            raise UserError(
                f"speaks status format {status.format}, this reads {FORMAT}", where=self.url
            )
        return status

    def trace(self) -> Iterator[bytes]:
        """The blocks that the daemon remembers as a Chrome trace, in pieces."""
        with self._open("GET", "/trace") as answer:
            while piece := answer.read(_PIECE):
                yield piece

    def tensors(self, model: str, version: str = "") -> tuple[list[Tensor], list[Tensor]]:
        """Inputs and outputs of a model; -1 where plans differ."""
        body = self._ask("GET", _path(model, version))
        try:
            said = msgspec.json.decode(body, type=_Metadata)
            return [t.tensor() for t in said.inputs], [t.tensor() for t in said.outputs]
        except (msgspec.MsgspecError, KeyError) as error:
            raise UserError(
                f"describes {model} in an unknown way: {error}", where=self.url
            ) from error

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, Array]:
        """One inference; outputs by name."""
        body, length = protocol.encode_request(inputs, parameters or {})
        headers = {HEADER_LENGTH: str(length), "content-type": "application/octet-stream"}
        with self._open("POST", _path(model, version) + "/infer", body, headers) as answer:
            header, body = answer.headers.get(HEADER_LENGTH), self._read(answer)
        length = int(header) if header else len(body)
        try:
            response = protocol.decode_response(body, length)
            return protocol.response_arrays(response, memoryview(body)[length:])
        except UserError as error:
            raise UserError(f"answers oddly: {error}", where=self.url) from error

    def load(self, model: str) -> None:
        """Load a model of the daemon's repository, or its newest version anew."""
        self._ask("POST", f"/v2/repository/models/{_quoted(model)}/load", b"{}")

    def unload(self, model: str) -> None:
        """Unload a model."""
        self._ask("POST", f"/v2/repository/models/{_quoted(model)}/unload", b"{}")

    def index(self) -> list[dict[str, Any]]:
        """What the daemon's repository holds: name, version, state, reason."""
        found = json.loads(self._ask("POST", "/v2/repository/index", b"{}"))
        return [entry for entry in found if isinstance(entry, dict)]

    def _ask(
        self, method: str, path: str, body: bytes | None = None, most: int = _ANSWER_BYTES_MAX
    ) -> bytes:
        with self._open(method, path, body) as answer:
            return self._read(answer, most)

    def _read(self, answer: IO[bytes], most: int = _ANSWER_BYTES_MAX) -> bytes:
        body = answer.read(most + 1)
        if len(body) > most:
            raise UserError(f"answers with more than {most} bytes", where=self.url)
        return body

    @contextmanager
    def _open(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise UserError("must begin with http:// or https://", where=self.url)
        all_headers = dict(headers or {})
        if self.token:
            all_headers["authorization"] = f"Bearer {self.token}"
        address = self.url.rstrip("/") + path
        try:
            request = urllib.request.Request(address, data=body, headers=all_headers, method=method)
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise UserError(_said(error), where=self.url) from error
        except urllib.error.URLError as error:
            raise UserError(f"no daemon answers there: {error.reason}", where=self.url) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UserError(f"no answer: {error}", where=self.url) from error


class _Described(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        return Tensor(self.name, protocol.DATATYPES[self.datatype], self.shape, 0)


class _Metadata(msgspec.Struct):
    inputs: list[_Described]
    outputs: list[_Described]


def _path(model: str, version: str) -> str:
    return f"/v2/models/{_quoted(model)}" + (f"/versions/{_quoted(version)}" if version else "")


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _said(error: urllib.error.HTTPError) -> str:
    """The server's own words, if it has any."""
    body = error.read(64 * 1024)
    try:
        said = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    hint = " (give --token)" if error.code in (401, 403) else ""
    return f"HTTP {error.code}: {said}{hint}"
