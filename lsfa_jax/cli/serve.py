"""The command behind bin/serve: trained models as an HTTP service, with a page for texts."""

import asyncio
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from lsfa_jax.cli import common
from lsfa_jax.config import Section
from lsfa_jax.util import console
from lsfa_jax.util.console import UserError

if TYPE_CHECKING:
    from lsfa_jax.serving.service.app import Service

TOKEN = "LSFA_TOKEN"
"""The environment variable with the token that requests have to know."""

_PACKAGES = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "prometheus_client": "prometheus-client",
    "python_multipart": "python-multipart",
}
# After the last request has been answered, or its time is over.
_SECONDS_TO_END = 5.0


class ServeArguments(Section):
    """Serves trained models over HTTP: an API for programs, and a page for texts.

    Examples:
      bin/serve --run runs/first                            then open http://127.0.0.1:8000/
      bin/serve --run news=runs/news laws=runs/laws         two models by name; the first is the default
      LSFA_TOKEN=... bin/serve --run runs/first --host 0.0.0.0 --port 80
      curl 127.0.0.1:8000/v1/predict --json '{"text": "Wheat exports rise"}'

    It answers this machine alone; where --host opens it to others, the environment variable LSFA_TOKEN has to hold a
    token that requests know. A model whose folder changes is read again, as are all after SIGHUP; SIGTERM and Ctrl-C
    end the service when the requests that have begun are answered. docs/serving.md describes the API.
    """

    run: tuple[str, ...] = Field(description="Folders of trained models, each as FOLDER or NAME=FOLDER.")
    host: str = Field("127.0.0.1", description="Address to listen at; 0.0.0.0 or :: for all of the machine.")
    port: int = Field(8000, ge=0, lt=2**16, description="Port to listen at; 0: any free one.")
    batch_size: NonNegativeInt = Field(0, description="Texts computed at a time. 0: the run's report.batch_size.")
    gather_ms: NonNegativeFloat = Field(
        2.0, description="Milliseconds that an idle device waits for further texts of a batch."
    )
    queue: PositiveInt = Field(2_000, description="Texts that wait at most; further requests get status 429.")
    timeout: PositiveFloat = Field(30.0, description="Seconds for the body of a request, and again for its answer.")
    max_bytes: PositiveInt = Field(4_000_000, description="Size of a request's body.")
    max_characters: PositiveInt = Field(100_000, description="Length of a text.")
    max_texts: PositiveInt = Field(1_000, description="Texts of a request.")
    connections: PositiveInt = Field(512, description="Open connections at most; further ones get status 503.")
    watch: PositiveFloat = Field(2.0, description="Seconds after which model folders are checked for changes again.")
    warm_up: bool = Field(
        True,
        description="Before the first request and before a reload, compile the programs for 5 labels a text; "
        "others (`top`, `threshold`) are compiled at the first request for them.",
    )


IN_HELP = ("run", "host", "port", "batch_size", "queue", "timeout", "max_texts")


def parse(argv: list[str], prog: str = "bin/serve") -> ServeArguments:
    """Reads a command line; raises UserError at an unknown option or a wrong value."""
    if sum(argument.partition("=")[0] == "--run" for argument in argv) > 1:
        raise UserError("--run: give it once, with all models: --run FOLDER FOLDER ...")
    return common.parse(ServeArguments, argv, prog, in_help=IN_HELP)


def serve(arguments: ServeArguments, prog: str = "bin/serve") -> None:
    """Answers requests until SIGTERM or SIGINT.

    Raises:
        UserError: the extra `serve` is not installed, the address cannot be used, it is open to others without a
            token, or a folder holds no model.
    """
    common.check_packages(prog, "serve", _PACKAGES)
    folders, token = _folders(arguments.run), os.environ.get(TOKEN, "")
    with _bound(arguments.host, arguments.port, token) as listening:
        # Imported late, so that --help and a wrong option answer at once.
        from lsfa_jax.serving.service.app import Service
        from lsfa_jax.serving.service.limits import Limits
        from lsfa_jax.serving.service.models import Models
        from lsfa_jax.util import compilation_cache

        compilation_cache.keep_on_disk()
        if arguments.warm_up:
            console.note("Reading models and compiling their programs ...")
        models = Models(folders, arguments.batch_size or None, arguments.warm_up)
        for name in models.names:
            labels = console.plural(len(models[name].model.labels), "label")
            console.note(f"model {name}: {folders[name]}, {labels}")
            common.warn_if_unfinished(folders[name])
        service = Service(
            models,
            limits=Limits(
                bytes=arguments.max_bytes,
                characters=arguments.max_characters,
                texts=arguments.max_texts,
                seconds=arguments.timeout,
            ),
            batch_size=arguments.batch_size
            or max(models[name].model.config.report.batch_size for name in models.names),
            most_waiting=arguments.queue,
            gather_seconds=arguments.gather_ms / 1000,
            watch_seconds=arguments.watch,
            token=token,
        )
        asyncio.run(_answer(service, listening, arguments))
    console.note("The service has ended.")


async def _answer(service: "Service", listening: socket.socket, arguments: ServeArguments) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Ends the service at a signal, without raising it again afterwards."""
            loop = asyncio.get_running_loop()
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(signum, self.handle_exit, signum, None)
            loop.add_signal_handler(signal.SIGHUP, service.reload)
            yield

        async def startup(self, *rest: Any, **options: Any) -> None:
            await super().startup(*rest, **options)
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            console.note(f"Serving at http://{shown}:{port}/ (the API at /docs); Ctrl-C ends.")

    config = uvicorn.Config(
        service.app,
        lifespan="on",
        # uvicorn's lines would name addresses and paths; errors are noted where they happen.
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        limit_concurrency=arguments.connections,
        timeout_graceful_shutdown=int(arguments.timeout + _SECONDS_TO_END),
    )
    await Server(config).serve(sockets=[listening])


def _folders(runs: tuple[str, ...]) -> dict[str, Path]:
    """Returns the model folders by name: NAME of NAME=FOLDER, else the folder's name."""
    folders: dict[str, Path] = {}
    for run in runs:
        name, equals, folder = run.partition("=")
        if not equals or Path(run).is_dir():
            name, folder = Path(run).resolve().name, run
        if name in folders or not name or not folder:
            raise UserError(f"--run {run}: expected FOLDER or NAME=FOLDER, each name once")
        folders[name] = Path(folder)
    if not folders:
        raise UserError("--run: expected at least one folder of a trained model")
    return folders


def _bound(host: str, port: int, token: str) -> socket.socket:
    """Returns a socket that listens at an address: connections wait until the models are ready.

    Raises:
        UserError: the address cannot be used, or others can reach it and there is no token.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if not token and not ipaddress.ip_address(address[0]).is_loopback:
            raise UserError(
                f"--host {host}: others could reach the service; set the environment variable {TOKEN} to a token that "
                "requests have to know, such as the output of: openssl rand -hex 32"
            )
        with ExitStack() as stack:
            listening = stack.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()  # at once: until then another process could bind the address, too
            stack.pop_all()  # it stays open
    except UnicodeError:
        raise UserError(f"--host {host}: is no name of a host") from None
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror})") from None
    return listening


def main(argv: list[str] | None = None, prog: str = "bin/serve") -> int:
    """Runs bin/serve and returns its exit code: 0 after SIGTERM or SIGINT; messages name the command `prog`."""
    return common.run(lambda line: serve(parse(line, prog), prog), argv)


if __name__ == "__main__":
    raise SystemExit(main())
