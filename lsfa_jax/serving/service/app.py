"""The routes of the service, from a request to its answer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from lsfa_jax.serving.predictor import Explanation, Prediction
from lsfa_jax.serving.selection import Selection, as_floats
from lsfa_jax.serving.service import openapi, page
from lsfa_jax.serving.service.batching import Batcher, QueueFullError
from lsfa_jax.serving.service.guard import Guard
from lsfa_jax.serving.service.limits import Limits, body, check_texts
from lsfa_jax.serving.service.messages import (
    ExplainedLabels,
    ExplainRequest,
    Explanations,
    Health,
    Label,
    LabelList,
    Labels,
    ModelState,
    Predictions,
    PredictRequest,
    first_problem,
)
from lsfa_jax.serving.service.metrics import Metrics
from lsfa_jax.serving.service.models import Models, Served, Task
from lsfa_jax.util import console

R = TypeVar("R", bound=PredictRequest)

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
# A share of a word of hundreds.
_ATTENTION_DECIMALS, _VOTE_DECIMALS = 5, 4


class Service:
    """The application, and what its requests share."""

    def __init__(
        self,
        models: Models,
        *,
        limits: Limits,
        batch_size: int = 128,
        most_waiting: int = 2_000,
        gather_seconds: float = 0.002,
        watch_seconds: float = 2.0,
        token: str = "",
    ) -> None:
        """Builds the routes; the lifespan of the application starts and ends the work.

        Args:
            models: what is served.
            limits: of each request.
            batch_size: texts computed at a time.
            most_waiting: texts that wait at most; further requests get 429.
            gather_seconds: how long an idle device waits for further texts.
            watch_seconds: time between two looks at the model folders.
            token: what requests have to know; "": nothing.
        """
        self._models, self._limits, self._watch_seconds = models, limits, watch_seconds
        self._metrics = Metrics(lambda: self._batcher.waiting)
        self._batcher = Batcher(batch_size, most_waiting, gather_seconds, self._metrics.batches.observe)
        self._reload_asked = asyncio.Event()
        routes = [
            Route("/", self._form, methods=["GET"]),
            Route("/", self._filled_form, methods=["POST"]),
            Route("/v1/predict", self._predict, methods=["POST"]),
            Route("/v1/explain", self._explain, methods=["POST"]),
            Route("/v1/labels", self._labels),
            Route("/health", self._health),
            Route("/metrics", self._show_metrics),
            Route("/openapi.json", self._openapi),
            Route("/docs", self._docs),
        ]
        paths = frozenset(route.path for route in routes)
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(Guard, token=token, metrics=self._metrics, paths=paths)],
            exception_handlers={HTTPException: _problem},
            lifespan=self._lifespan,
        )

    def reload(self) -> None:
        """Reads all models again, soon; for a signal handler of the event loop."""
        self._reload_asked.set()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._batcher.run()), asyncio.create_task(self._watch())]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Reads models again whose folder has changed, or all when asked."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._reload_asked.wait(), self._watch_seconds)
            names = self._models.names if self._reload_asked.is_set() else self._models.changed()
            self._reload_asked.clear()
            for name in names:
                is_new = await run_in_threadpool(self._models.reload, name)
                self._metrics.reloads.labels(name, "done" if is_new else "refused").inc()
                if is_new:
                    console.note(f"model {name}: read again")
                else:
                    console.warn(f"model {name}: the one before is still served; {self._models.problems[name]}")

    # --- the API

    async def _predict(self, request: Request) -> Response:
        asked = await self._read(request, PredictRequest)
        served = self._served(asked.model)
        selection = Selection.of(asked.top, asked.threshold, served.model.threshold)
        results = await self._results(served, False, selection, asked.all_texts, self._limits.texts)
        predictions = [_labels(served, result, selection.count(result.probabilities)) for result in results]
        return _json(Predictions(model=served.name, predictions=predictions))

    async def _explain(self, request: Request) -> Response:
        asked = await self._read(request, ExplainRequest)
        served = self._served(asked.model)
        selection = Selection.of(asked.top, asked.threshold, served.model.threshold)
        results = await self._results(served, True, selection, asked.all_texts, self._limits.explained_texts)
        return await run_in_threadpool(_explanations, served, results, selection)

    async def _labels(self, request: Request) -> Response:
        served = self._served(request.query_params.get("model", ""))
        return await run_in_threadpool(_label_list, served)

    async def _health(self, request: Request) -> Response:
        models = [
            ModelState(
                name=name, num_labels=len(self._models[name].model.labels), problem=self._models.problems.get(name, "")
            )
            for name in self._models.names
        ]
        return _json(Health(status="ok", models=models))

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.text(), headers={"content-type": _PROMETHEUS})

    async def _openapi(self, request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def _read(self, request: Request, kind: type[R]) -> R:
        data = await body(request, self._limits)
        try:
            return kind.model_validate_json(data)
        except ValidationError as error:
            is_json = error.errors(include_input=False)[0]["type"] != "json_invalid"
            raise HTTPException(422 if is_json else 400, first_problem(error, kind)) from None

    def _served(self, name: str) -> Served:
        try:
            return self._models[name]
        except KeyError:
            names = ", ".join(self._models.names)
            raise HTTPException(404, f"model: expected one of {names}") from None

    async def _results(
        self, served: Served, explains: bool, selection: Selection, texts: list[str], most_texts: int
    ) -> list[Any]:
        """Returns a prediction or an explanation of each text, computed in batches with those of other requests."""
        check_texts(texts, most_texts, self._limits)
        task = Task.of(served, explains, selection.top)
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await self._batcher.results(task, texts)
        except QueueFullError:
            raise HTTPException(429, "too many texts wait; send fewer, or later", {"retry-after": "1"}) from None
        except TimeoutError:
            raise HTTPException(503, f"not computed within {self._limits.seconds:g} seconds") from None

    # --- the pages

    async def _form(self, request: Request) -> Response:
        return HTMLResponse(page.form(self._models.names, page.Choices()))

    async def _filled_form(self, request: Request) -> Response:
        choices = page.Choices()
        try:
            data = await body(request, self._limits)
            choices = await page.read(request, data, self._limits)
            served = self._served(choices.model)
            names, texts = await run_in_threadpool(page.documents, choices)
            selection = Selection.of(choices.top, "auto" if choices.above else "none", served.model.threshold)
            results = await self._results(served, True, selection, texts, page.MOST_TEXTS)
        except HTTPException as problem:
            html = page.form(self._models.names, choices, problem=problem.detail)
            return HTMLResponse(html, problem.status_code, problem.headers)
        html = await run_in_threadpool(page.results, self._models.names, choices, served, names, results, selection)
        return HTMLResponse(html)

    async def _docs(self, request: Request) -> Response:
        return HTMLResponse(page.docs())


def _labels(served: Served, result: Prediction | Explanation, count: int) -> Labels:
    """Returns the names and probabilities of the first labels of a text."""
    names = [served.model.labels[label] for label in result.label_ids[:count]]
    return Labels(labels=names, probabilities=as_floats(result.probabilities[:count]))


def _label_list(served: Served) -> Response:
    model, head_threshold = served.model, served.model.config.pvae.head_threshold
    labels = [
        Label(name=name, documents=count, group="tail" if count < head_threshold else "head")
        for name, count in zip(model.labels, model.label_counts.tolist(), strict=True)
    ]
    return _json(LabelList(model=served.name, threshold=model.threshold, head_threshold=head_threshold, labels=labels))


def _explanations(served: Served, results: Sequence[Explanation], selection: Selection) -> Response:
    explanations = []
    for result in results:
        count = selection.count(result.probabilities)
        votes = None
        if result.votes is not None:
            votes = [[(word, round(vote, _VOTE_DECIMALS)) for word, vote in words] for words in result.votes[:count]]
        explanations.append(
            ExplainedLabels(
                **_labels(served, result, count).model_dump(),
                text=result.text,
                words=result.spans,
                attention=result.attention[:count].astype(float).round(_ATTENTION_DECIMALS).tolist(),
                votes=votes,
            )
        )
    return _json(Explanations(model=served.name, explanations=explanations))


def _json(content: BaseModel) -> Response:
    return Response(content.model_dump_json(), media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
