"""Every way to start on two nodes that docs/cluster.md names gives the same weights."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from memo.slurm import CODE
from tests.cluster.document import command
from tests.cluster.jobs import wait_for_state
from tests.cluster.slurm import NODES, Cluster
from tests.cluster.ssh import missing_programs, ssh_between_nodes
from tests.launch.command import JOINED, ROOT
from tests.memo.training.small_run import checkpoint, small_config, write_small_dataset
from tests.ports import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

STEPS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout, with a dataset."""
    made = tmp_path_factory.mktemp("launchers")
    for name in CODE:
        (made / name).symlink_to(ROOT / name)
    write_small_dataset(made / "dataset")
    return made


def user(folder: Path, run: str) -> dict[str, str]:
    """What the document's variables are here."""
    config = small_config(Path("dataset"), Path("runs") / run).model_dump(mode="json")
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(config))
    own = {key: one for key, one in os.environ.items() if key not in JOINED}
    return own | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CONFIG": str(path),
        "NODES": "2",
        "GPUS": "1",
        "FIRST": NODES[0],
        "SECOND": NODES[1],
        "PORT": str(free_ports(1)[0]),
    }


def weights(folder: Path, run: str) -> bytes:
    return (checkpoint(folder / "runs" / run, STEPS) / "model.safetensors").read_bytes()


def run_on_both(line: str, folder: Path, environment: dict[str, str]) -> None:
    """As two people do on two nodes at once."""
    started = [
        subprocess.Popen(
            ["bash", "-c", line],
            cwd=folder,
            env=environment | {"NODE": node},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in ("0", "1")
    ]
    try:
        outputs = [one.communicate(timeout=600)[0] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [0, 0], "\n".join(outputs)


@pytest.fixture
def shell() -> Iterator[Path]:
    missing = missing_programs()
    if missing:
        pytest.skip(f"no {', '.join(missing)} here (Debian: apt-get install openssh-server pdsh)")
    with ssh_between_nodes() as folder:
        yield folder


@pytest.fixture(scope="module")
def by_torchrun(folder: Path) -> bytes:
    run_on_both(command("torchrun"), folder, user(folder, "torchrun"))
    return weights(folder, "torchrun")


def test_deepspeed_gives_the_same_weights(folder: Path, by_torchrun: bytes) -> None:
    environment = user(folder, "deepspeed")
    subprocess.run(["bash", "-c", command("printf")], cwd=folder, env=environment, check=True)
    run_on_both(command("deepspeed --hostfile hosts --no_ssh"), folder, environment)
    assert weights(folder, "deepspeed") == by_torchrun


def test_deepspeed_over_ssh_gives_the_same_weights(
    shell: Path, folder: Path, by_torchrun: bytes
) -> None:
    environment = user(folder, "ssh")
    environment["PATH"] = f"{shell}{os.pathsep}{environment['PATH']}"
    subprocess.run(["bash", "-c", command("printf")], cwd=folder, env=environment, check=True)
    line = command("deepspeed --hostfile hosts --master_addr")
    subprocess.run(["bash", "-c", line], cwd=folder, env=environment, check=True, timeout=600)
    assert weights(folder, "ssh") == by_torchrun


def test_slurm_gives_the_same_weights(cluster: Cluster, folder: Path, by_torchrun: bytes) -> None:
    slurm = {"SLURM_CONF": cluster.environment["SLURM_CONF"]}
    said = subprocess.check_output(
        ["bash", "-c", command("sbatch")], cwd=folder, env=user(folder, "sbatch") | slurm, text=True
    )
    subprocess.run(
        ["bash", "-c", command("srun")],
        cwd=folder,
        env=user(folder, "srun") | slurm,
        check=True,
        timeout=600,
    )
    wait_for_state(cluster, said.split()[-1], "COMPLETED")
    assert weights(folder, "srun") == weights(folder, "sbatch") == by_torchrun
