"""What holds for every request: the token, the headers of the response, errors without a traceback, measurements."""

import base64
import binascii
import hmac
import time
import traceback
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lsfa_jax.serving.service.metrics import Metrics
from lsfa_jax.util import console

# Pages have no scripts and load nothing; style-src is for the stylesheet within them.
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_OPEN = "/health"


class Guard:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, token: str, metrics: Metrics, paths: frozenset[str]) -> None:
        """Wraps an application.

        Args:
            app: the application.
            token: what requests have to know, as a bearer token or as a password that a browser asks for; "": nothing.
            metrics: counts requests by path and status.
            paths: the paths of the application; others are counted together.
        """
        self._app, self._token, self._metrics, self._paths = app, token.encode(), metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app = self._app if self._allows(scope) else _UNAUTHORISED
        try:
            await app(scope, receive, send_with_headers)
        except Exception as error:
            # Not the message, which may hold a part of a text.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            console.warn(f"{scope['path']}: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}")
            if not status:
                response = JSONResponse({"error": "internal error; the log of the service has its place"}, 500)
                await response(scope, receive, send_with_headers)
        finally:
            endpoint = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.seconds.labels(endpoint, str(status)).observe(time.perf_counter() - started)

    def _allows(self, scope: Scope) -> bool:
        if not self._token or scope["path"] == _OPEN:
            return True
        kind, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
        given = value.strip().encode("latin-1")  # as Starlette decodes headers
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif kind.lower() != "bearer":
            return False
        return hmac.compare_digest(given, self._token)


_UNAUTHORISED = JSONResponse(
    {"error": "expected the service's token, as Authorization: Bearer TOKEN or as the password of a browser"},
    401,
    {"www-authenticate": 'Basic realm="lsfa_jax"'},
)
