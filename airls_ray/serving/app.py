"""The endpoint's HTTP side: an ASGI application over a `SearchService`.

POST /v1/completions   POST /v1/chat/completions   GET /v1/models   GET /v1/models/ID
GET /health   GET /metrics   GET /version
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airls_ray.search.live import Search
from airls_ray.serving.errors import (
    ApiError,
    bad_request,
    engine_failed,
    slow_body,
    too_large,
    too_slow,
    wrong_token,
)
from airls_ray.serving.metrics import CONTENT_TYPE, Metrics
from airls_ray.serving.replies import Found, Replies
from airls_ray.serving.requests import ChatRequest, CompletionRequest, parse
from airls_ray.serving.search_queue import REFUSALS
from airls_ray.serving.service import Job, SearchService
from airls_ray.serving.token import is_allowed
from airls_ray.version import __version__

_LOG = logging.getLogger(__name__)
_OUR_FAULT = 500  # as Starlette answers what nobody has caught
_CLIENT_GONE = 499  # nobody reads it
_COUNTED = ("/v1/completions", "/v1/chat/completions")

T = TypeVar("T")


def make_app(service: SearchService, token: bytes | None) -> Starlette:
    """Return the application; `token`: digest of the bearer token that /v1 asks for, None for none."""
    endpoint, metrics = _Endpoint(service), service.metrics
    return Starlette(
        routes=[
            Route("/v1/completions", endpoint.complete, methods=["POST"]),
            Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
            Route("/v1/models", endpoint.models, methods=["GET"]),
            Route("/v1/models/{name:path}", endpoint.model, methods=["GET"]),
            Route("/health", endpoint.health, methods=["GET"]),
            Route("/metrics", endpoint.metrics, methods=["GET"]),
            Route("/version", endpoint.version, methods=["GET"]),
        ],
        middleware=[Middleware(_Count, metrics=metrics), Middleware(_Gate, token=token)],
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


class _Count:
    """Counts the requests for completions and chats."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in _COUNTED:
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except asyncio.CancelledError:
            status = status or _CLIENT_GONE
            raise
        finally:  # an error without a reply is answered further out
            self._metrics.request(scope["path"], status or _OUR_FAULT, time.perf_counter() - start)


class _Endpoint:
    def __init__(self, service: SearchService) -> None:
        self._service = service
        # Of its own: votes wait for graders, and must not keep new requests from being read.
        self._answers = ThreadPoolExecutor(service.config.serve.max_live, "answers")

    async def complete(self, request: Request) -> Response:
        until = self._deadline()
        return await self._generate(
            request, parse(CompletionRequest, await self._body(request, until)), until
        )

    async def chat(self, request: Request) -> Response:
        until = self._deadline()
        return await self._generate(request, parse(ChatRequest, await self._body(request, until)), until)

    def _deadline(self) -> float:
        """Of a request that begins now, in the loop's seconds."""
        return asyncio.get_running_loop().time() + self._service.config.serve.deadline_seconds

    async def models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._service.require_model(request.path_params["name"])
        return _json(self._model())

    def _model(self) -> dict[str, Any]:
        longest = self._service.config.model.context_tokens
        return {
            "id": self._service.model, "object": "model", "created": 0, "owned_by": "airls-ray",
            "max_model_len": longest,
        }  # fmt: skip

    async def metrics(self, request: Request) -> Response:
        queue = self._service.queue
        text = self._service.metrics.text(*queue.counts(), queue.failing)
        return Response(text, media_type=CONTENT_TYPE)

    async def version(self, request: Request) -> Response:
        return _json({"version": __version__})

    async def health(self, request: Request) -> Response:
        live, waiting = self._service.queue.counts()
        failing = self._service.queue.failing
        body = {"status": "failing" if failing else "ok", "live": live, "waiting": waiting}
        return _json(body, 503 if failing else 200)

    async def _body(self, request: Request, until: float) -> bytes:
        serve = self._service.config.serve
        limit = serve.max_body_bytes
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout_at(until):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise too_large(limit)
        except TimeoutError as error:
            raise slow_body(serve.deadline_seconds) from error
        return bytes(body)

    async def _generate(
        self, request: Request, parsed: CompletionRequest | ChatRequest, until: float
    ) -> Response:
        service = self._service
        jobs = await asyncio.to_thread(service.prepare, parsed)
        found = await self._search(request, jobs, until)
        chat = isinstance(parsed, ChatRequest)
        replies = Replies(chat, service.model, service.config.search.scorer.shown, found)
        if not parsed.stream:
            return _json(replies.whole())
        events = replies.events(parsed.stream_options.include_usage)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )

    async def _search(self, request: Request, jobs: Sequence[Job], until: float) -> list[Found]:
        """Wait for the searches and their answers; whatever ends the wait, the searches end with it."""
        futures: list[Future[Search]] = []
        try:
            for job in jobs:
                futures.append(self._service.submit(job))
            gathered = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
            searches = await _wait(gathered, request, until)
            choosing = self._answers.submit(self._choose, jobs, searches)
            return await _wait(asyncio.wrap_future(choosing), request, until)
        except TimeoutError as error:
            raise too_slow(self._service.config.serve.deadline_seconds) from error
        except (ApiError, ClientDisconnect):
            raise
        except REFUSALS as error:
            raise bad_request(str(error)) from error
        except Exception as error:
            _LOG.error("a request failed: %s: %s", type(error).__name__, error)
            raise engine_failed() from error
        finally:
            for future in futures:
                future.cancel()

    def _choose(self, jobs: Sequence[Job], searches: Sequence[Search]) -> list[Found]:
        return [
            Found(job, search, self._service.answer(job, search))
            for job, search in zip(jobs, searches, strict=True)
        ]


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
    _LOG.error("a request failed", exc_info=error)  # the reply says that the log says why
    return _reply(engine_failed())
