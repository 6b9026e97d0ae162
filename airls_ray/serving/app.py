"""The endpoint's HTTP side: an ASGI application over a `SearchService`.

POST /v1/completions   POST /v1/chat/completions   GET /v1/models   GET /health
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from airls_ray.search.driver import Search
from airls_ray.serving.answers import Answer
from airls_ray.serving.errors import ApiError, bad_request, engine_failed, too_large, too_slow, wrong_token
from airls_ray.serving.replies import Replies
from airls_ray.serving.requests import ChatRequest, CompletionRequest, parse
from airls_ray.serving.service import Job, SearchService
from airls_ray.serving.token import is_allowed

_LOG = logging.getLogger(__name__)
_CLIENT_GONE = 499  # nobody reads it

T = TypeVar("T")


def make_app(service: SearchService, token: bytes | None) -> Starlette:
    """Return the application; `token`: digest of the bearer token that /v1 asks for, None for none."""
    endpoint = _Endpoint(service)
    return Starlette(
        routes=[
            Route("/v1/completions", endpoint.complete, methods=["POST"]),
            Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
            Route("/v1/models", endpoint.models, methods=["GET"]),
            Route("/health", endpoint.health, methods=["GET"]),
        ],
        middleware=[Middleware(_Gate, token=token)],
        exception_handlers={
            ApiError: _api_error,
            ClientDisconnect: _client_gone,
            HTTPException: _http_error,
            Exception: _our_fault,
        },
    )


class _Gate:
    """Lets nothing under /v1 pass without the token, before its body is read."""

    def __init__(self, app: ASGIApp, token: bytes | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            given = Request(scope).headers.get("authorization")
            if not is_allowed(given, self._token):
                await _reply(wrong_token())(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Endpoint:
    def __init__(self, service: SearchService) -> None:
        self._service = service
        # Of its own: votes wait for graders, and must not keep new requests from being read.
        self._answers = ThreadPoolExecutor(service.config.serve.max_live, "answers")

    async def complete(self, request: Request) -> Response:
        parsed = parse(CompletionRequest, await self._body(request))
        return await self._generate(request, parsed)

    async def chat(self, request: Request) -> Response:
        parsed = parse(ChatRequest, await self._body(request))
        return await self._generate(request, parsed)

    async def models(self, request: Request) -> Response:
        one = {"id": self._service.model, "object": "model", "created": 0, "owned_by": "airls-ray"}
        return _json({"object": "list", "data": [one]})

    async def health(self, request: Request) -> Response:
        live, waiting = self._service.queue.counts()
        failing = self._service.queue.failing
        body = {"status": "failing" if failing else "ok", "live": live, "waiting": waiting}
        return _json(body, 503 if failing else 200)

    async def _body(self, request: Request) -> bytes:
        limit = self._service.config.serve.max_body_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_large(limit)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large(limit)
        return bytes(body)

    async def _generate(self, request: Request, parsed: CompletionRequest | ChatRequest) -> Response:
        service = self._service
        job = await asyncio.to_thread(service.prepare, parsed)
        search, answer = await self._search(request, job)
        chat = isinstance(parsed, ChatRequest)
        replies = Replies(chat, service.model, service.config.search.scorer, job, search, answer)
        if not parsed.stream:
            return _json(replies.whole())
        events = replies.events(parsed.stream_options.include_usage)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    async def _search(self, request: Request, job: Job) -> tuple[Search, Answer]:
        """Wait for the search and its answer; whatever ends the wait, the search ends with it."""
        seconds = self._service.config.serve.deadline_seconds
        until = asyncio.get_running_loop().time() + seconds
        future = self._service.submit(job)
        try:
            search = await _wait(asyncio.wrap_future(future), request, until)
            choosing = self._answers.submit(self._service.answer, job, search)
            answer = await _wait(asyncio.wrap_future(choosing), request, until)
        except TimeoutError as error:
            raise too_slow(seconds) from error
        except (ApiError, ClientDisconnect):
            raise
        except Exception as error:
            _LOG.error("a request failed: %s: %s", type(error).__name__, error)
            raise engine_failed() from error
        finally:
            future.cancel()
        return search, answer


async def _wait(result: Awaitable[T], request: Request, until: float) -> T:
    """Return the result.

    Raises:
        TimeoutError: it is not there at `until`, in the loop's seconds.
        ClientDisconnect: the client has gone.
    """
    task, gone = asyncio.ensure_future(result), asyncio.ensure_future(_disconnect(request))
    left = max(0.0, until - asyncio.get_running_loop().time())
    try:
        await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise TimeoutError
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(request: Request) -> None:
    """Return when the client has gone (its whole body has been read)."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status, headers, media_type="application/json")


def _reply(error: ApiError) -> Response:
    return _json(error.body(), error.status, error.headers)


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _reply(error)


async def _client_gone(request: Request, error: Exception) -> Response:
    return Response(status_code=_CLIENT_GONE)


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown path, wrong method."""
    assert isinstance(error, HTTPException)
    return _reply(
        bad_request(f"{request.method} {request.url.path[:100]}: {error.detail}", status=error.status_code)
    )


async def _our_fault(request: Request, error: Exception) -> Response:
    return _reply(engine_failed())
