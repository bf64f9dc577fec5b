"""A throw-away Ceph on loopback: one monitor, one OSD in memory, one S3 gateway; nothing outside its folder."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from utils.stores import ACCESS, SECRET

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
INSTALL = "apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw ceph-common"

CONFIG = """[global]
fsid = {fsid}
auth cluster required = none
auth service required = none
auth client required = none
mon host = v1:127.0.0.1:{mon_port}
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
pid file = {folder}/run/$name.pid
log file = {folder}/log/$name.log
crash dir = {folder}/crash
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd heartbeat grace = 600
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 1
osd objectstore = memstore
memstore device bytes = 1073741824
osd class load list = *
osd class default list = *
[mon.a]
mon data = {folder}/mon.a
mon cluster log file = {folder}/log/cluster.log
[osd.0]
osd data = {folder}/osd.0
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw enable usage log = false
rgw thread pool size = 16
"""


def missing():
    """The reason why there can be no Ceph here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(absent)} not found: {INSTALL}" if absent else None


class Ceph:
    """``with Ceph(folder) as ceph:`` runs it; ``ceph.url`` is the gateway, with the keys of ``utils.stores``.

    Monitor and OSD answer on one machine alone and without authentication; the S3 side demands signatures.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.port, self.mon_port = _free_port(), _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.conf = self.folder / "ceph.conf"

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """End the daemons, the stopped ones too."""
        for name in ("client.rgw.a", "osd.0", "mon.a"):
            self.kill(name, signal.SIGTERM)

    def pause_osd(self):
        """Objects can no longer be read: the gateway takes requests and never answers.

        The heartbeat's grace is long, or a pause of 16 s would leave the only OSD waiting for a lease for ever.
        """
        os.kill(self._pid("osd.0"), signal.SIGSTOP)

    def resume_osd(self):
        """Objects can be read again."""
        os.kill(self._pid("osd.0"), signal.SIGCONT)

    def kill_gateway(self):
        """Nothing listens on the gateway's port any more."""
        self.kill("client.rgw.a", signal.SIGKILL)

    def start_gateway(self):
        """Start the gateway and wait until it answers."""
        self._run("radosgw", "-n", "client.rgw.a")
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, self._log("client.rgw.a")
            time.sleep(0.1)

    def kill(self, name, number):
        """Send a signal to a daemon and wait until it is gone."""
        pid = self._pid(name)
        if pid is None:
            return
        for one in (signal.SIGCONT, number):
            _signal(pid, one)
        deadline = time.monotonic() + 10
        while _alive(pid):
            if time.monotonic() > deadline:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.05)
        (self.folder / "run" / f"{name}.pid").unlink(missing_ok=True)

    def _start(self):
        for name in ("run", "log", "mon.a", "osd.0", "rgw", "crash"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "keyring").touch()
        fsid = str(uuid.uuid4())
        places = {"fsid": fsid, "folder": self.folder, "port": self.port, "mon_port": self.mon_port}
        self.conf.write_text(CONFIG.format(**places))
        monmap = self.folder / "monmap"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{self.mon_port}]", monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._run("ceph-mon", "-i", "a")
        osd = str(uuid.uuid4())
        assert self._run("ceph", "--connect-timeout", "20", "osd", "new", osd).strip() == "0"
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0")
        self.start_gateway()
        user = ("--uid=test", "--display-name=test", f"--access-key={ACCESS}", f"--secret={SECRET}")
        self._run("radosgw-admin", "user", "create", *user)

    def _run(self, program, *arguments):
        """Several attempts: a young monitor answers EPERM, 'wrong fsid' or no reason at all (16.2.15)."""
        command = [program, "-c", str(self.conf), *map(str, arguments)]
        for _ in range(5):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode == 0:
                break
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
        return done.stdout

    def _answers(self):
        try:
            urllib.request.urlopen(self.url, timeout=2).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def _pid(self, name):
        path = self.folder / "run" / f"{name}.pid"
        text = path.read_text().strip() if path.is_file() else ""
        return int(text) if text else None

    def _log(self, name):
        path = self.folder / "log" / f"{name}.log"
        return path.read_text(errors="replace")[-2000:] if path.is_file() else f"{name} has no log"


def _free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _signal(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
