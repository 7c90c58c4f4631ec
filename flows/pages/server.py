"""`unbraid browse`: a run folder's catalog in a browser of this machine. It reads and never writes."""

import contextlib
import functools
import json
import secrets
import socket
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool

from storage.errors import MetricsError, StorageError
from storage.files.layout import OutputLayout
from storage.files.location import is_url
from storage.results.browsing import Filter, Search, TrackTable
from tasks.pages.catalog import (
    CatalogFiles,
    Place,
    catalog_page,
    image,
    shortlist_manifest,
    sound,
    sound_file,
    track_page,
)
from tasks.pages.render import render

HOSTS = ("127.0.0.1", "localhost")
_REFRESH_SECONDS = 10.0
_MOST_BODY = 8_000_000
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; media-src 'self'; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
}


class Catalog:
    """The table of tracks, remade when rows have been written."""

    def __init__(self, out: OutputLayout) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        self.table = TrackTable(out)
        self.files = CatalogFiles(out)
        self._old: list[TrackTable] = []

    def current(self) -> TrackTable:
        """The table, checked for new rows every ten seconds at most."""
        with self._lock:
            if time.monotonic() - self._looked > _REFRESH_SECONDS:
                self._looked = time.monotonic()
                with contextlib.suppress(MetricsError):  # a run that writes at this moment: the next check sees it
                    if self.table.changed():
                        self._old.append(self.table)  # a request may still be reading it
                        self.table, self.files = TrackTable(self._out), CatalogFiles(self._out)
                        while len(self._old) > 2:
                            self._old.pop(0).close()
            return self.table

    def close(self) -> None:
        for table in [*self._old, self.table]:
            table.close()


def application(out: OutputLayout, token: str) -> FastAPI:
    """The web application over a run folder.

    Args:
        out: The run folder.
        token: The first part of every path; without it everything is 404.

    Raises:
        MetricsError: The folder has no metrics.
    """
    catalog = Catalog(out)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        catalog.close()

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)

    @app.middleware("http")
    async def guarded(request: Request, answer: Callable) -> Response:
        """Only this machine's names, only with the token, only to read; nothing may be put into a page."""
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        given = request.url.path.split("/", 2)[1]
        if host not in HOSTS or not secrets.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("not found", 404)
        if request.method not in ("GET", "HEAD") and not request.url.path.endswith("/shortlist.csv"):
            return PlainTextResponse("this server only reads", 405)
        request.state.nonce = secrets.token_urlsafe(16)
        response = await answer(request)
        for name, value in _HEADERS.items():
            response.headers[name] = value.format(nonce=request.state.nonce)
        return response

    def html(request: Request, page: str) -> HTMLResponse:
        # The template's scripts are ours; their nonce is put in here, and a script from anywhere else has none.
        return HTMLResponse(page.replace('<script nonce="">', f'<script nonce="{request.state.nonce}">'))

    async def shown(request: Request, work: Callable[[], Any]) -> Any:
        """The work's result, or a page with its sentence."""
        try:
            return await run_in_threadpool(work)
        except StorageError as error:
            return html(request, render("problem.html", sentence=str(error)))

    @app.get(f"/{token}/")
    async def tracks(request: Request) -> Response:
        search, sql = read_search(request)
        page = await shown(request, lambda: catalog_page(catalog.current(), search, sql))
        return page if isinstance(page, Response) else html(request, page)

    @app.get(f"/{token}/track")
    async def track(request: Request) -> Response:
        page = await shown(request, lambda: track_page(catalog.current(), catalog.files, place(request)))
        return page if isinstance(page, Response) else html(request, page)

    @app.get(f"/{token}/audio")
    async def audio(request: Request) -> Response:
        values = request.query_params
        work = functools.partial(sound, catalog.current(), catalog.files, place(request), values.get("stem", ""),
                                 _number(values.get("start")), _number(values.get("seconds"), 10.0))  # fmt: skip
        return await _bytes(work, "audio/wav")

    @app.get(f"/{token}/picture")
    async def spectrogram(request: Request) -> Response:
        stem = request.query_params.get("stem", "")
        work = functools.partial(image, catalog.current(), catalog.files, place(request), stem)
        return await _bytes(work, "image/webp")

    @app.get(f"/{token}/file")
    async def file(request: Request) -> Response:
        stem = request.query_params.get("stem", "")
        try:
            path = await run_in_threadpool(sound_file, catalog.current(), catalog.files, place(request), stem)
        except StorageError as error:
            return PlainTextResponse(str(error), 404)
        if is_url(path):
            return PlainTextResponse("this stem lies in an object store", 404)
        return FileResponse(path, filename=f"{stem}{path.suffix}", content_disposition_type="inline")

    @app.post(f"/{token}/shortlist.csv")
    async def shortlist(request: Request) -> Response:
        body = await request.body()
        if len(body) > _MOST_BODY:
            return PlainTextResponse("the shortlist is too long", 413)
        try:
            ids = json.loads(urllib.parse.parse_qs(body.decode()).get("ids", ["[]"])[0])
        except (ValueError, UnicodeDecodeError):
            return PlainTextResponse("the shortlist cannot be read", 400)
        ids = [one for one in ids if isinstance(one, str)] if isinstance(ids, list) else []
        text = await run_in_threadpool(shortlist_manifest, catalog.current(), ids)
        return Response(text, media_type="text/csv",
                        headers={"Content-Disposition": "attachment; filename=shortlist.csv"})  # fmt: skip

    return app


async def _bytes(work: Callable[[], bytes], kind: str) -> Response:
    try:
        return Response(await run_in_threadpool(work), media_type=kind)
    except StorageError as error:
        return PlainTextResponse(str(error), 404)


def place(request: Request) -> Place:
    """The track that a URL names.

    Args:
        request: A request with the parameters `id` and `model`; "" where one is missing, which no track has.
    """
    return Place(request.query_params.get("id", ""), request.query_params.get("model", ""))


def read_search(request: Request) -> tuple[Search, str]:
    """The search and the SELECT in a URL's parameters.

    Args:
        request: The request. Parameters that make no sense are ignored.

    Returns:
        The search, and the SELECT, "" where there is none.
    """
    values = request.query_params
    triples = zip(values.getlist("column"), values.getlist("is"), values.getlist("value"), strict=False)
    filters = tuple(Filter(*triple) for triple in triples if triple[0] and triple[2].strip())
    page = values.get("page", "1")
    search = Search(
        values.get("text", ""), filters, values.get("where", ""), values.get("order", "path"),
        values.get("descending") == "1", int(page) if page.isdigit() and len(page) < 10 else 1,
    )  # fmt: skip
    return search, values.get("sql", "").strip()


def _number(text: str | None, otherwise: float = 0.0) -> float:
    try:
        value = float(text or otherwise)
    except ValueError:
        return otherwise
    return value if 0 <= value < 1e7 else otherwise


def serve(out: OutputLayout, port: int | None, opened: Callable[[str], None]) -> None:
    """Show a run folder on loopback until Ctrl-C.

    Args:
        out: The run folder.
        port: Where to listen; a free port where None.
        opened: Called with the address, which holds the token; whoever opens it from then on is answered.

    Raises:
        MetricsError: The folder has no metrics.
        OSError: The port is taken.
    """
    import uvicorn

    token = secrets.token_urlsafe(24)
    app = application(out, token)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOSTS[0], port or 0))
        listening.listen()  # a browser that is quicker than the server waits instead of being refused
        opened(f"http://{HOSTS[0]}:{listening.getsockname()[1]}/{token}/")
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])
