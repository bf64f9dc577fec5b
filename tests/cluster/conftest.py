"""A real Slurm of two nodes on this machine: munged, slurmctld and two slurmd on the loopback, nothing under /etc."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from launch import environment

PACKAGES = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
NODES = ("n1", "n2")
CONF = """
ClusterName=mllmtest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/munge.sock,cred_expire=5
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobs.txt
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,sched_min_interval=0
MinJobAge=3600
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=normal Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=120
PartitionName=urgent Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY"}


def until(met, what, seconds=180):
    """Wait for an event of another process; its value."""
    for _ in range(seconds * 10):
        if value := met():
            return value
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Slurm:
    def __init__(self, folder):
        self.folder, self.conf = folder, folder / "slurm.conf"
        self.environment = environment(SLURM_CONF=str(self.conf))

    def start(self):
        for name in ("munge", "state", "run", "log", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        key = self.folder / "munge" / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(CONF.format(folder=self.folder, host=host, ports=free_ports(3)))
        munge = [f"--key-file={key}", f"--socket={self.folder}/munge/munge.sock"]
        munge += [
            f"--{name}-file={self.folder}/{where}"
            for name, where in (("pid", "run/munged.pid"), ("log", "log/munged.log"), ("seed", "munge/seed"))
        ]
        self.call("munged", *munge)
        self.call("slurmctld", "-c")
        for node in NODES:
            self.call("slurmd", "-N", node)
        until(
            lambda: self.call("sinfo", "-h", "-N", "-p", "normal", "-o", "%T").split() == ["idle"] * len(NODES),
            self.logs,
            30,
        )

    def stop(self):
        """End the jobs, then the daemons."""
        if (self.folder / "run" / "slurmctld.pid").exists():
            for words in (["--full", "--signal=KILL"], []):
                subprocess.run(["scancel", "--me", *words], env=self.environment, timeout=60, check=False)
            until(lambda: not self.call("squeue", "-h"), self.logs, 30)
        self._stop_daemons()

    def _stop_daemons(self):
        pids = [int(path.read_text()) for path in (self.folder / "run").glob("*.pid") if path.read_text().strip()]
        for pid in pids:
            self._signal(pid, signal.SIGTERM)
        for pid in pids:
            try:
                until(lambda pid=pid: not self._signal(pid, 0), f"{pid} ends", 10)
            except AssertionError:
                self._signal(pid, signal.SIGKILL)

    @staticmethod
    def _signal(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def call(self, *words):
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, env=self.environment, timeout=60
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def job(self, number):
        """Fields of ``scontrol show job``."""
        return dict(
            word.split("=", 1) for word in self.call("scontrol", "-o", "show", "job", number).split() if "=" in word
        )

    def ended(self, number, log=None, seconds=180):
        """The state in which a job ends."""

        def state():
            found = self.job(number)["JobState"]
            return found if found in ENDED else None

        return until(
            state, lambda: f"end of {self.job(number)}\n{log.read_text() if log and log.exists() else ''}", seconds
        )

    def array_ended(self, number, task, log):
        """As ``ended``, for one task of an array; fails unless it ends well."""
        found = lambda: dict(  # noqa: E731
            line.split()
            for line in self.call("squeue", "-h", "-r", "-t", "all", "-j", number, "-o", "%i %T").splitlines()
        ).get(f"{number}_{task}")
        state = until(
            lambda: found() if found() in ENDED else None, lambda: log.read_text() if log.exists() else found()
        )
        assert state == "COMPLETED", log.read_text()

    until = staticmethod(until)

    def logs(self):
        return "\n".join(
            path.read_text(errors="replace")[-1500:] for path in sorted((self.folder / "log").glob("*.log"))
        )


@pytest.fixture(scope="module")
def slurm():
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        pytest.skip(f"Slurm is not installed ({missing[0]}): {PACKAGES}")
    if os.geteuid() != 0:
        pytest.skip("munged and slurmd of this test start as root")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    folder.chmod(0o755)
    cluster = Slurm(folder)
    try:
        cluster.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(cluster.conf))
            patch.setenv("OMP_NUM_THREADS", "1")
            yield cluster
    finally:
        try:
            cluster.stop()
        finally:
            cluster._stop_daemons()
        shutil.rmtree(folder, ignore_errors=True)
