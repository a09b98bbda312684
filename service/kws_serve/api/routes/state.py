"""Routes to how the service is: streams, status, health, metrics, and the document of its WebSockets."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from kws_serve.api.asyncapi import asyncapi_document
from kws_serve.api.metrics import exposition, make_registry
from kws_serve.api.routes.answers import error, grant_of, service_of
from kws_serve.api.schemas import ErrorMessage
from kws_serve.api.schemas.state import Demo, Readiness, ServerList, Status, StreamList
from kws_serve.api.status import readiness, servers_json, status_csv, status_json
from kws_serve.api.views import demo_json, stream_json

routes = APIRouter()


@routes.get("/v1/streams", response_model=StreamList)
def streams(request: Request) -> Response:
    """The open streams."""
    grant, engine = grant_of(request), service_of(request).engine
    names = [s for s in list(engine.streams.values()) if grant.may_touch(s.name)]
    return JSONResponse({"items": [stream_json(engine, s) for s in names]})


@routes.get("/v1/demo", response_model=Demo, responses={404: {"model": ErrorMessage, "description": "No demo audio."}})
def demo(request: Request) -> Response:
    """What is really said in the demo audio, where a stream plays it."""
    grant, streams = grant_of(request), list(service_of(request).engine.streams.values())
    if not any(s.kind == "demo" and grant.may_touch(s.name) for s in streams):
        return error(404, "demo: found no stream that plays the demo audio, wanted kws-serve --demo")
    return JSONResponse(demo_json())


@routes.get("/v1/status", response_model=Status)
def status(request: Request) -> Response:
    """The server at a glance."""
    return JSONResponse(status_json(service_of(request), grant_of(request)))


@routes.get("/v1/servers", response_model=ServerList)
def servers(request: Request) -> Response:
    """A row for this server, and one for each that it watches."""
    return JSONResponse({"items": servers_json(service_of(request), grant_of(request))})


@routes.get("/v1/status.csv", response_class=PlainTextResponse)
def status_rows(request: Request) -> Response:
    """The same as CSV."""
    return PlainTextResponse(status_csv(servers_json(service_of(request), grant_of(request))), media_type="text/csv")


@routes.get("/healthz", response_model=Readiness)
def healthz() -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


@routes.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(request: Request) -> Response:
    """The engine runs and the log is on the disk: audio that comes now is processed, what is found is kept."""
    fault = readiness(service_of(request))
    return JSONResponse({"status": fault or "ready"}, 503 if fault else 200)


@routes.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Prometheus metrics, as text or, where `Accept` asks for it, as OpenMetrics."""
    body, content_type = exposition(make_registry(service_of(request)), request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type, "vary": "accept"})


@routes.get("/asyncapi.json")
def asyncapi() -> Response:
    """The WebSocket messages as an AsyncAPI 3 document."""
    return JSONResponse(asyncapi_document())
