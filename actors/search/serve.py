"""`airls-ray serve`: the Ray Serve deployment whose answers come from search, and its start and end.

client -> Serve's proxy -> SearchEndpoint (one replica: HTTP, the queue, the search driver)
                                -> rollout workers, step scorers, verifier (as of `airls-ray search`)
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.cluster import processes
from actors.rollout.elastic_fleet import FleetEvents
from actors.search.search_parts import PoolGenerator
from actors.search.search_setup import SearchParts, check_models, start
from actors.train.start import connected
from actors.verify.verifier_handle import VerifierHandle
from airls_ray.config.schema import Config
from airls_ray.console.choose import make_progress
from airls_ray.console.progress import Progress
from airls_ray.data.schemas import PROBLEMS
from airls_ray.errors import RunError
from airls_ray.search.driver import SearchDriver
from airls_ray.search.try_scorer import try_scorer
from airls_ray.serving.answers import Canonical, reader
from airls_ray.serving.app import make_app
from airls_ray.serving.prompts import PromptEncoder
from airls_ray.serving.search_queue import SearchQueue
from airls_ray.serving.service import SearchService, check_defaults
from airls_ray.serving.token import check_exposure, read_token
from airls_ray.tasks import make_task
from airls_ray.text.codec import TextCodec

_LOG = logging.getLogger(__name__)
_APPLICATION = "airls-ray"
_REFUSALS = 64  # requests beyond the queue that the replica must have room for, to refuse them itself


class SearchEndpoint:
    """The replica: one, since all requests share the ticks of one driver."""

    def __init__(
        self, config: Config, policy: str, model: str, token: bytes | None, log: Path, **parts: Any
    ) -> None:
        """Start the queue.

        Args:
            config: all of it.
            policy: folder or hub name, for the tokenizer.
            model: the name that requests give.
            token: digest of the bearer token.
            log: file of what fails.
            parts: pool, scorer, settings, aggregate and verifier of `SearchParts`.
        """
        _log_to(log)
        pool = parts["pool"]
        pool.fleet.follow(FleetEvents(say=_LOG.warning))
        codec = TextCodec.for_model(config.model, policy, make_task(config.task))
        canonical = reading(parts["verifier"])
        driver = SearchDriver(
            PoolGenerator(pool), parts["scorer"], codec.is_blank, parts["settings"], reader(canonical)
        )
        queue = SearchQueue(driver, config.serve.max_live, config.serve.max_queue, pool.rest)
        service = SearchService(
            config,
            model,
            codec,
            PromptEncoder(codec),
            driver,
            queue,
            parts["aggregate"],
            canonical,
        )
        queue.start()
        self._app = make_app(service, token)

    def __serve_build_asgi_app__(self) -> Any:
        """What Ray Serve asks a deployment for that makes its application itself."""
        return self._app


def reading(verifier: VerifierHandle) -> Canonical:
    """Return what reads answers: the task's grader, in the verifier's child processes.

    It is given no right answer, which its reading does not depend on (its verdict does, and is dropped),
    and no steps, whose truth is not asked for. One call at a time: it replaces a verifier that died.
    """
    lock = threading.Lock()

    def read(problem: str, responses: Sequence[Sequence[int]]) -> list[str | None]:
        problems = pa.table({"prompt": [problem], "answer": [""], "details": ["{}"]})
        count = len(responses)
        with lock:
            grades = verifier.call("judge", problems, [0] * count, responses, [[]] * count)
        answers: list[str | None] = grades["answer"].to_pylist()
        return answers

    return read


def run_serve(
    config: Config,
    policy: Path,
    prm: Path | None,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
) -> None:
    """Serve until Ctrl-C (or SIGTERM), then end everything that was started.

    Args:
        config: task, engine, `search` and `serve` sections.
        policy: policy folder (or hub name); its last part is the model's name.
        prm: `prm` folder of a checkpoint; None with a scorer that needs none.
        host: address to listen on.
        port: port to listen on.
        token_file: file of the bearer token; None: the environment's AIRLS_RAY_TOKEN, or no token.

    Raises:
        ModelError: a folder is missing, broken, or the two do not fit.
        ConfigError: the settings cannot be served, or no token protects an address that others reach.
        RunError: the port is taken, or the deployment fails.
    """
    progress = make_progress()
    token = read_token(token_file, os.environ)
    check_exposure(host, token)
    check_defaults(config)
    try_scorer(config.search.scorer, progress)
    config = check_models(config, policy, prm)
    codec = TextCodec.for_model(config.model, policy, make_task(config.task))
    if _starts_cluster(config):
        _check_port(host, port)
    model = policy.resolve().name
    with (
        connected(config),
        closing(start(config, policy, prm, PROBLEMS.empty_table(), codec, progress)) as parts,
        _serving(parts, policy, model, host, port, token, progress),
    ):
        _wait_for_interrupt(progress)


@contextmanager
def _serving(
    parts: SearchParts,
    policy: Path,
    model: str,
    host: str,
    port: int,
    token: bytes | None,
    progress: Progress,
) -> Iterator[None]:
    """Have the deployment up inside the block.

    Raises:
        RunError: the cluster serves something already, or the deployment fails.
    """
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # which its import has set
    found = serve.status()
    if found.applications or found.proxies:
        raise RunError("this cluster runs Ray Serve already: end that (`serve shutdown`), or use another one")
    limits = parts.config.serve
    endpoint = serve.deployment(
        name="SearchEndpoint",
        num_replicas=1,
        max_ongoing_requests=limits.max_live + limits.max_queue + _REFUSALS,
        graceful_shutdown_timeout_s=limits.close_seconds,
        graceful_shutdown_wait_loop_s=0.2,
        ray_actor_options={
            "num_cpus": 0,
            "runtime_env": {"env_vars": processes.process_environment(parts.config.search.resources, 1)},
        },
    )(serve.ingress()(SearchEndpoint))
    log = log_file(parts.config)
    parts.fleet.follow(FleetEvents())  # whom it told has a terminal; the replica looks after the workers now
    try:
        with progress.phase("endpoint ready"):
            _in_words(
                lambda: serve.start(proxy_location="HeadOnly", http_options={"host": host, "port": port})
            )
            application = endpoint.bind(
                parts.config,
                str(policy),
                model,
                token,
                log,
                pool=parts.pool,
                scorer=parts.scorer,
                settings=parts.settings,
                aggregate=parts.aggregate,
                verifier=parts.verifier,
            )
            _in_words(lambda: serve.run(application, name=_APPLICATION, route_prefix="/"))
        secret = "with the bearer token" if token is not None else "without a token"
        where = f"[{host}]" if ":" in host else host
        progress.say(f"Serving model {model} at http://{where}:{port}/v1 ({secret}); Ctrl-C ends it")
        progress.say(f"What fails is written to {log}")
        yield
    finally:
        if not _starts_cluster(parts.config):
            serve.shutdown()
        elif _APPLICATION in serve.status().applications:
            # Requests under way may end; Serve itself ends with the cluster. Its own shutdown ends with a
            # line of Ray's about a task that failed.
            serve.delete(_APPLICATION)


def log_file(config: Config) -> Path:
    """Where the endpoint writes what fails: in the run folder, on the machine of the replica."""
    return (config.output / config.name / "serve.log").absolute()


def _log_to(file: Path) -> None:
    """Write warnings and errors of our own modules to a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("actors", "airls_ray"):
        logging.getLogger(name).addHandler(handler)


def _starts_cluster(config: Config) -> bool:
    """Whether the cluster is this command's own."""
    return config.ray.address is None and "RAY_ADDRESS" not in os.environ


def _in_words(act: Callable[[], Any]) -> None:
    """Do something with Ray Serve, whose errors are RuntimeErrors and TimeoutErrors.

    Raises:
        RunError: it failed.
    """
    try:
        act()
    except (RuntimeError, TimeoutError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(f"Ray Serve could not start the endpoint: {lines[-1][:300]}") from error


def _check_port(host: str, port: int) -> None:
    """Find out early that a port is taken: Ray Serve would try for long.

    Raises:
        RunError: nothing can listen there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise RunError(f"cannot listen on {host}:{port} ({error.strerror}): give another --port") from error


def _wait_for_interrupt(progress: Progress) -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        progress.say("Ending the endpoint")
