"""A Slurm cluster of two nodes on this machine, for tests and `python -m tests.cluster.slurm`.

Configuration, key, sockets, ports, state and logs are its own, in a temporary folder, so that
several can run beside each other and beside a real one. Needs Debian's `slurm-wlm` and `munge`,
and no rights beyond those of the user.
"""

import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ports import free_ports

USER = pwd.getpwuid(os.getuid()).pw_name
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""Not all users have the daemons' places in PATH."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")
NODES = ("127.0.0.1", "127.0.0.2")
"""Names that resolve; in Slurm's own notation `127.0.0.[1-2]`."""

CONFIG = """
ClusterName=memo
# The ranks' port follows from the job's number, and another cluster may run on this machine.
FirstJobId={first_job}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# A job that was requeued waits until its old credential has expired.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
MpiDefault=none
# With linuxproc an srun outlives its job, and kills the step of the same number when that starts
# again.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
# A node that is silent for so long has failed.
SlurmdTimeout={silence_s}
# A busy machine is slow to answer, to start a job, and to save it when that is preempted.
MessageTimeout={answer_s}
BatchStartTimeout=300
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 Gres=gpu:2
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=240
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""


class Cluster:
    """Two idle nodes, as a context manager; all its processes end with it.

    Args:
        silence_s: seconds after which a node that says nothing has failed.

    Attributes:
        environment: in which Slurm's commands are this cluster's.
    """

    def __init__(self, silence_s: int = 300) -> None:
        self._silence_s = silence_s
        # The path of a socket may have 107 characters, fewer than that of a test's own folder.
        self._folder = Path(tempfile.mkdtemp(prefix="memo-slurm-"))
        self._daemons: list[subprocess.Popen[bytes]] = []
        own = {"SLURM_CONF": str(self._folder / "slurm.conf"), "PATH": SEARCHED}
        self.environment = os.environ | own

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._start("munged", "-F", *self._munge_files())
            self._wait_for((self._folder / "munge.socket").exists)
            self._start("slurmctld", "-D")
            self._wait_for(lambda: "UP" in self.say("scontrol", "ping"))
            for node in NODES:
                self.boot(node)
            self._wait_for(lambda: self.say("sinfo", "-h", "-p", "low", "-o", "%D %t") == "2 idle")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def boot(self, node: str) -> None:
        """Start a node."""
        self._start("slurmd", "-D", "-N", node, MEMO_NODE=node)

    def crash(self, node: str) -> None:
        """What runs on a node is gone, all at once, and nobody says goodbye."""
        for variable in ("MEMO_NODE", "SLURMD_NODENAME"):  # daemons first: they tell of their tasks
            for process in self._ours(f"{variable}={node}"):
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)

    def say(self, *command: str) -> str:
        """What a command prints; its failure is no error."""
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
        return ended.stdout.strip()

    def state(self, job: str) -> str:
        """RUNNING, PENDING, COMPLETED, ..."""
        fields = self.say("scontrol", "-o", "show", "job", job).split()
        return next((one[9:] for one in fields if one.startswith("JobState=")), "")

    def _configure(self) -> None:
        folder = self._folder
        folder.chmod(0o711)  # munged wants its socket to be in reach of all
        (folder / "state").mkdir()
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        host = socket.gethostname().split(".")[0]
        filled = CONFIG.format(
            folder=folder,
            host=host,
            user=USER,
            silence_s=self._silence_s,
            answer_s=self._silence_s // 3,
            ports=free_ports(3),
            nodes=NODES,
            first_job=secrets.randbelow(1_000_000) + 1,
        )
        (folder / "slurm.conf").write_text(filled)
        # Any device: Slurm only counts them.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n")

    def _munge_files(self) -> list[str]:
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
        return [f"--{option}={self._folder}/munge.{end}" for option, end in names.items()]

    def _start(self, *command: str, **variables: str) -> None:
        """A daemon, which the kernel kills if this process dies without stopping it."""
        with (self._folder / f"{len(self._daemons)}.err").open("wb") as file:
            started = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=self.environment | {"MEMO_CLUSTER": str(self._folder)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._daemons.append(started)

    def _wait_for(self, done: Callable[[], object]) -> None:
        """Until the daemons are so far.

        Raises:
            RuntimeError: the last one has ended, or is silent for too long; with what it said.
        """
        end = time.monotonic() + 60
        while not done():
            if time.monotonic() > end or self._daemons[-1].poll() is not None:
                said = self._folder / f"{len(self._daemons) - 1}.err"
                raise RuntimeError(f"Slurm does not start: {said.read_text('utf8')[-2000:]}")
            time.sleep(0.1)

    def _stop(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.say("scancel", "--full", "--signal=KILL", f"--user={USER}")
            self.say("scancel", f"--user={USER}")
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            with suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
            daemon.kill()
            daemon.wait()
        for process in self._ours():
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ours(self, *more: str) -> list[int]:
        """Daemons, their children, and tasks of jobs, e.g. of one whose node is gone.

        Args:
            more: variables that they have in their environment besides.
        """
        daemon = f"MEMO_CLUSTER={self._folder}".encode()
        cluster = f"SLURM_CONF={self._folder / 'slurm.conf'}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                content = path.read_bytes()
                variables = content.split(b"\0")
                if {one.encode() for one in more} <= set(variables) and (
                    daemon in variables or (cluster in variables and b"\0SLURM_JOB_ID=" in content)
                ):
                    found.append(int(path.parent.name))
        return [one for one in found if one != os.getpid()]


def missing_programs() -> list[str]:
    """Those of a cluster that this machine lacks."""
    return [one for one in PROGRAMS if shutil.which(one, path=SEARCHED) is None]


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with Cluster() as cluster, suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={shlex.quote(cluster.environment['SLURM_CONF'])}", flush=True)
        signal.pause()
