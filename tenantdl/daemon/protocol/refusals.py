"""Errors on their way to a client, with the HTTP status that tells what kind they are."""

from __future__ import annotations

from http import HTTPStatus

from tenantdl.daemon.calls import Refused
from tenantdl.errors import UserError
from tenantdl.sched.messages import Reason

STATUS = {
    Reason.QUEUE_FULL: 429,
    Reason.RATE_EXCEEDED: 429,
    Reason.DEADLINE_INFEASIBLE: 503,
    Reason.EXPIRED: 503,
    Reason.LANE_LOST: 503,
    Reason.EXECUTION_FAILED: 500,
    Reason.CANCELLED: 499,
}
SAID = {
    Reason.QUEUE_FULL: "the tenant's queue is full",
    Reason.RATE_EXCEEDED: "the tenant sends more than its rate",
    Reason.DEADLINE_INFEASIBLE: "the deadline cannot be met",
    Reason.EXPIRED: "the request waited too long",
    Reason.LANE_LOST: "the lane that ran the request was lost",
    Reason.EXECUTION_FAILED: "the model failed on this request",
    Reason.CANCELLED: "the client has gone",
}


class ProtocolError(Exception):
    """A request that is answered with `status` (of HTTP) and `message`."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        self.message = message
        super().__init__(message)


def as_protocol_error(error: Exception) -> ProtocolError | None:
    """What a client is told of `error`; None for what is no fault of theirs or of the machine's."""
    match error:
        case ProtocolError():
            return error
        case Refused():
            stage = f" (in module {error.stage})" if error.stage else ""
            said = f"{error.reason.value}: {SAID[error.reason]}{stage}"
            return ProtocolError(STATUS[error.reason], said)
        case UserError():
            return ProtocolError(HTTPStatus.BAD_REQUEST, str(error))
        case _:
            return None
