"""Who asks, and what they may do. Tokens are compared by their digests, in constant time.

As long as no token is configured, everybody is the operator and may speak for any tenant. With
tokens, a client is the tenant whose token it sends (`Authorization: Bearer TOKEN`), or the
operator; without a token it can only be a tenant that has none. To others nothing exists that they
may not use: an unknown model and a forbidden one get the same answer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from tenantdl.daemon.catalogue import Catalogue, Served
from tenantdl.daemon.protocol.refusals import ProtocolError
from tenantdl.daemon.stages import ServedApplication
from tenantdl.ids import ModelId, TenantId
from tenantdl.load.applications import ApplicationSection
from tenantdl.load.workload import TenantSection

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """`tenants`: whom it may speak for. `operator`: it may load, unload and see everything."""

    tenants: frozenset[TenantId]
    operator: bool

    def tenant_for(self, model: Served, asked: object = None) -> TenantId:
        """The tenant of a request for `model`: `asked` (the parameter), else the first it may be.
        Raises ProtocolError."""
        for tenant in model.tenants:
            if asked in (None, tenant) and tenant in self.tenants:
                return tenant
        raise ProtocolError(400, f"tenant {asked!r} is not yours, or does not use this model")


class Access:
    """Callers by what they send."""

    def __init__(
        self,
        tenants: Mapping[TenantId, TenantSection],
        operator: tuple[str, ...],
        applications: Mapping[ModelId, ServedApplication] | None = None,
    ) -> None:
        """`operator`: digests of the operator's tokens. `applications`: tenants of their own, with
        tokens of their own; for their modules only operators speak once there are tokens."""
        modules: set[TenantId] = set()
        terms: dict[TenantId, TenantSection | ApplicationSection] = dict(tenants)
        for name, application in (applications or {}).items():
            modules |= {stage.tenant for stage in application.stages.values()}
            terms[TenantId(name)] = application.section
        outside = {name: each for name, each in terms.items() if name not in modules}
        open_ones = frozenset(name for name, each in outside.items() if not each.token_sha256)
        self.secured = bool(operator) or len(open_ones) < len(outside)
        self._callers = [
            (bytes.fromhex(digest), Caller(frozenset({name}), operator=False))
            for name, each in outside.items()
            for digest in each.token_sha256
        ]
        full = Caller(frozenset(terms), operator=True)
        self._callers += [(bytes.fromhex(digest), full) for digest in operator]
        self._nobody = Caller(open_ones, operator=False) if self.secured else full
        self._memory = {n for n, t in outside.items() if t.shared_memory or not t.token_sha256}

    def caller(self, authorization: str | None) -> Caller:
        """Who sends this header. Raises ProtocolError (401) for a wrong token, and for none where
        one is needed."""
        if not self.secured:
            return self._nobody
        if authorization is None:
            if not self._nobody.tenants:
                raise ProtocolError(401, "a token is needed")
            return self._nobody
        token = authorization[len(_SCHEME) :].strip()
        digest = hashlib.sha256(token.encode()).digest()
        found: Caller | None = None
        for known, caller in self._callers:  # all of them, whatever the first say
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None or not authorization.lower().startswith(_SCHEME):
            raise ProtocolError(401, "the token is not valid")
        return found

    def may_map_memory(self, caller: Caller) -> bool:
        """Whether `caller` may name regions of this machine's shared memory."""
        return caller.operator or bool(caller.tenants & self._memory)


def find_model(catalogue: Catalogue, caller: Caller, name: str, version: str = "") -> Served:
    """A model that `caller` may use. Raises ProtocolError (404)."""
    model = catalogue.find(name, version)
    if model is None or not (caller.operator or caller.tenants.intersection(model.tenants)):
        which = f"'{name}'" if not version else f"'{name}' version {version}"
        raise ProtocolError(404, f"Request for unknown model: {which} is not found")
    return model


def require_operator(caller: Caller) -> None:
    """Raises ProtocolError (403) unless `caller` is the operator."""
    if not caller.operator:
        raise ProtocolError(403, "only the operator may do this")
