"""Downloads from a server of this machine: resumed, checked, complete or absent."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mllm.errors import ConfigError, DataError
from mllm.utils.download import download, name_of

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content`` everywhere but under /none; ``cuts`` says after how many bytes the next answers break off."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.ranges, self.cuts, self.asked = CONTENT, '"1"', True, [], []

    def url(self, path="/data.bin"):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if self.path.startswith("/none"):
            self.send_error(404)
            return
        start, total = 0, len(server.content)
        same = self.headers.get("If-Range", server.etag) == server.etag
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        end = start + server.cuts.pop(0) if server.cuts else total
        self.wfile.write(server.content[start:end])

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    one = Server()
    thread = threading.Thread(target=one.serve_forever, daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()
    thread.join()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server, tmp_path):
    path = download(server.url(), tmp_path / "new" / "data.bin", SHA256.upper())
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["data.bin"]
    download(server.url(), path, SHA256)
    assert server.asked == [None]


def test_broken_connections_are_taken_up_where_they_ended(server, tmp_path):
    server.cuts = [1000, 500]
    path = download(server.url(), tmp_path / "data.bin", SHA256)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]


def test_an_interrupted_download_goes_on_when_run_again(server, tmp_path):
    server.cuts = [1000, 0]
    with pytest.raises(DataError, match=r"ended after 1,000 of 256,000 bytes; run the same again to go on"):
        download(server.url(), tmp_path / "data.bin", SHA256)
    assert names(tmp_path) == ["data.bin.part", "data.bin.part.json"]
    assert (tmp_path / "data.bin.part").read_bytes() == CONTENT[:1000]
    server.asked.clear()
    assert download(server.url(), tmp_path / "data.bin", SHA256).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]
    assert names(tmp_path) == ["data.bin"]


@pytest.mark.parametrize("change", ["no ranges", "other content", "other url", "part too long"])
def test_what_cannot_be_resumed_starts_anew(server, tmp_path, change):
    server.cuts = [1000, 0]
    with pytest.raises(DataError):
        download(server.url(), tmp_path / "data.bin")
    path = "/data.bin"
    if change == "no ranges":
        server.ranges = False
    elif change == "other content":
        server.content, server.etag = b"z" * 5000, '"2"'
    elif change == "other url":
        path = "/other.bin"
    else:
        (tmp_path / "data.bin.part").write_bytes(bytes(len(CONTENT) + 1))
    assert download(server.url(path), tmp_path / "data.bin").read_bytes() == server.content
    assert names(tmp_path) == ["data.bin"]


def test_a_wrong_checksum_is_told_and_nothing_is_put_in_place(server, tmp_path):
    wrong = "0" * 64
    with pytest.raises(DataError, match=f"its SHA-256 is {SHA256}, expected {wrong}; it is kept: correct the checksum"):
        download(server.url(), tmp_path / "data.bin", wrong)
    assert names(tmp_path) == ["data.bin.part", "data.bin.part.json"]
    # The checksum was mistyped: with the right one nothing is sent again.
    assert download(server.url(), tmp_path / "data.bin", SHA256).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={len(CONTENT)}-"]
    (tmp_path / "data.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"data.bin, from http.*: its SHA-256 is .*name another place"):
        download(server.url(), tmp_path / "data.bin", SHA256)
    assert (tmp_path / "data.bin").read_bytes() == b"mine"


def test_errors_are_one_sentence(server, tmp_path):
    with pytest.raises(DataError, match=r"/none.bin: the server answers 404 Not Found; check the address"):
        download(server.url("/none.bin"), tmp_path / "x")
    closed = server.url().replace(str(server.server_address[1]), "9")
    with pytest.raises(DataError, match=r"127.0.0.1:9/data.bin: cannot be reached \(.*refused.*check address"):
        download(closed, tmp_path / "x")
    assert names(tmp_path) == []
    with pytest.raises(ConfigError, match="'file:///etc/passwd': expected http"):
        download("file:///etc/passwd", tmp_path / "x")
    with pytest.raises(ConfigError, match="sha256 'abc': expected 64 hexadecimal digits"):
        download(server.url(), tmp_path / "x", "abc")


def test_the_name_at_the_end_of_an_address():
    assert name_of("https://host/a/Images_LR.zip?download=1") == "Images_LR.zip"
    assert name_of("https://host/a%20b.json") == "a b.json"
    for url in ("https://host/", "https://host", "https://host/a/..", "https://host/%2e%2e%2fx"):
        with pytest.raises(ConfigError, match="does not end in the name of a file"):
            name_of(url)
