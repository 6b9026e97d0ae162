"""What a client is told when a request fails: a status and a body in OpenAI's form."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """A request that gets no answer. `param` names the field that is wrong."""

    def __init__(
        self, status: int, message: str, kind: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.code = code
        self.param = param

    @property
    def headers(self) -> dict[str, str]:
        """What the status asks for beside the body."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"Retry-After": "1"} if self.status == 429 else {}

    def body(self) -> dict[str, Any]:
        """The body, as OpenAI's clients read it."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def bad_request(
    message: str, param: str | None = None, code: str | None = None, status: int = 400
) -> ApiError:
    """The client's mistake; sending it again does not help."""
    return ApiError(status, message, "invalid_request_error", code=code, param=param)


def wrong_token() -> ApiError:
    """No bearer token, or not the endpoint's."""
    return bad_request("the bearer token is missing or wrong", code="invalid_api_key", status=401)


def unknown_model(given: str, served: str) -> ApiError:
    """Another model than the one that is served."""
    message = f"there is no model {given[:100]!r} here; the one that is served is {served!r}"
    return bad_request(message, "model", "model_not_found", 404)


def too_large(limit: int) -> ApiError:
    """A body beyond the limit."""
    message = f"the body is longer than {limit} bytes (serve.max_body_bytes)"
    return bad_request(message, code="request_too_large", status=413)


def too_many(most: int) -> ApiError:
    """All places and the queue are taken."""
    message = f"{most} requests are live or waiting, which is the most here: try again later"
    return ApiError(429, message, "rate_limit_error", code="rate_limit_exceeded")


def too_slow(seconds: float) -> ApiError:
    """The deadline passed."""
    message = (
        f"there was no answer within {seconds:g} s, and the search was dropped: ask for a smaller budget"
    )
    return ApiError(504, message, "timeout_error", code="deadline_exceeded")


def slow_body(seconds: float) -> ApiError:
    """The deadline passed before the request was there."""
    message = f"the request's body did not come within {seconds:g} s"
    return ApiError(408, message, "timeout_error", code="deadline_exceeded")


def engine_failed() -> ApiError:
    """An engine or a scorer failed; the endpoint's log says how."""
    return ApiError(
        500, "the search failed: the endpoint's log says why", "server_error", code="engine_failed"
    )
