"""Object stores for tests: moto's server in this process, a proxy before it that fails on demand, their settings."""

import http.client
import threading
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mllm.utils import object_settings, object_store

ACCESS, SECRET = "test-access-key", "test-secret-key-that-no-message-may-show"
INSTALL = "pip install boto3 'moto[s3]' flask flask-cors"
_OWN = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")


@contextmanager
def moto_server():
    """The address of a store without objects; it takes any key."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def write_settings(path, monkeypatch, **clusters):
    """A petreloss.conf with the clusters, name → address, the first as the default, in use from now on."""
    first = next(iter(clusters))
    text = [f"[DEFAULT]\ndefault_cluster = {first}\naccess_key = {ACCESS}\nsecret_key = {SECRET}\n"]
    text += [f"[{name}]\nhost_base = {address}\n" for name, address in clusters.items()]
    path.write_text("".join(text))
    monkeypatch.setenv("PETREL_CONF", str(path))
    for name in (*_OWN, "MLLM_OBJECT_CACHE", "MLLM_OBJECT_TIMEOUT", "MLLM_OBJECT_ATTEMPTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    object_settings.forget()


def make_bucket(name, cluster=None):
    """A bucket in one of the clusters."""
    _store, client, _place = object_store._opened(f"{cluster}:s3://{name}/x" if cluster else f"s3://{name}/x")
    client.create_bucket(Bucket=name)


class Proxy:
    """Passes requests on to ``target``; each GET or PUT first takes one of ``faults``.

    "drop": half the body, then the end; "stall": no answer; "stall-body": half the body, then nothing; "reset": the
    connection is closed at once; a number and a code: that status. None, or no fault left: the answer as it is.
    """

    def __init__(self, target):
        self.target = target.removeprefix("http://")
        self.faults, self.requests, self.closing = deque(), [], threading.Event()

    def __enter__(self):
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def begin_anew(self):
        """Forget faults and requests, and let go who was left without an answer."""
        self.closing.set()
        self.closing = threading.Event()
        self.faults.clear()
        self.requests.clear()

    def count(self, method):
        return sum(one == method for one, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner = None

    def log_message(self, *_):
        pass

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.owner.requests.append((self.command, self.path))
        fault = self.owner.faults.popleft() if self.owner.faults and self.command in ("GET", "PUT") else None
        if fault == "reset":
            return self._end()
        if fault == "stall":
            return self._stall()
        if isinstance(fault, tuple):
            return self._refuse(*fault)
        self._pass_on(body, fault)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do_any

    def _pass_on(self, body, fault):
        behind = http.client.HTTPConnection(self.owner.target, timeout=60)
        behind.request(self.command, self.path, body, dict(self.headers))
        answer = behind.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault in ("drop", "stall-body"):
            self.wfile.write(content[: len(content) // 2])
            return self._stall() if fault == "stall-body" else self._end()
        self.wfile.write(content)

    def _refuse(self, status, code):
        content = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stall(self):
        self.wfile.flush()
        self.owner.closing.wait(60)
        self._end()

    def _end(self):
        self.wfile.flush()
        self.close_connection = True
