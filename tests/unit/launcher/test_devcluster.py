from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPOSITORY / "slurm"))

from devcluster import cli, config, install  # noqa: E402
from devcluster.options import DevClusterError, Options  # noqa: E402


def conf(options: Options, version: tuple[int, int] = (22, 5)) -> str:
    return config.slurm_conf(options, Path("/f"), user="me", host="box", version=version)


def test_one_line_a_node_and_the_asked_for_limits() -> None:
    text = conf(Options(nodes=3, gpus=4, grace_time=20, kill_wait=7, preempt_mode="CANCEL"))
    assert text.count("\nNodeName=") == 3
    assert "Gres=gpu:4" in text
    assert "KillWait=7" in text
    assert "PartitionName=low" in text
    assert "PreemptMode=CANCEL GraceTime=20" in text
    ports = [line.split("Port=")[1].split()[0] for line in text.splitlines() if "NodeName=" in line]
    assert len(set(ports)) == 3, "nodes on one address need a port each"


def test_switch_for_user_signals_by_version() -> None:
    options = Options(send_user_signal=True)
    assert "SlurmctldParameters=preempt_send_user_signal" in conf(options)
    assert "PreemptParameters=send_user_signal" in conf(options, (24, 11))
    assert "send_user_signal" not in conf(Options())


def test_what_a_version_lacks_is_one_line() -> None:
    assert "SlurmctldParameters=enable_stepmgr\n" in conf(Options(stepmgr=True), (24, 11))
    assert "PrologFlags=contain" in conf(Options(stepmgr=True), (24, 11))
    with pytest.raises(DevClusterError, match=r"--stepmgr needs Slurm 24.05, and this is 22.05"):
        conf(Options(stepmgr=True))
    with pytest.raises(DevClusterError, match=r"--expedite needs Slurm 25.11, and this is 24.11"):
        conf(Options(expedite=True), (24, 11))


def test_requeue_delay_by_version() -> None:
    assert "requeue_delay" not in conf(Options(requeue_delay=7), (24, 11))
    assert "sched_interval=5,requeue_delay=7\n" in conf(Options(requeue_delay=7), (25, 11))


def test_accounting_and_its_qos() -> None:
    text = conf(Options(accounting=True, qos_preempt=True, base_port=100))
    assert "PreemptType=preempt/qos\n" in text
    assert "AccountingStoragePort=99\n" in text
    assert "PreemptMode=OFF GraceTime" in text, "the QOS alone says who is preempted"
    assert "StoragePort=98\n" in config.slurmdbd_conf(Options(base_port=100), Path("/f"), user="me")
    with pytest.raises(DevClusterError, match="--qos-preempt needs --accounting"):
        Options(qos_preempt=True)


def test_cgroups_keep_a_jobs_memory() -> None:
    text = conf(Options(cgroup=True))
    assert "ProctrackType=proctrack/cgroup\nTaskPlugin=task/cgroup\n" in text
    assert "SelectTypeParameters=CR_CPU_Memory\nDefMemPerNode=2000\n" in text
    assert "ConstrainRAMSpace=yes\n" in config.cgroup_conf()
    assert "cgroup" not in conf(Options())


def test_a_machine_without_such_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory").mkdir()
    monkeypatch.setattr(config, "CGROUPS", tmp_path)
    with pytest.raises(DevClusterError, match="--cgroup needs root and the controller freezer"):
        config.require_cgroups()


def test_namespaces_have_addresses_and_names() -> None:
    options = Options(netns=True, subnet="10.9.8")
    assert "NodeHostname=n2 NodeAddr=10.9.8.12" in conf(options)
    assert "SlurmctldHost=box(10.9.8.1)" in conf(options)
    assert "10.9.8.11 n1" in config.hosts_file(options, "box")


def test_a_device_for_every_gpu() -> None:
    lines = config.gres_conf(Options(nodes=2, gpus=8)).splitlines()
    assert len(lines) == 8
    assert len({line.split("File=")[1] for line in lines}) == 8
    assert config.gres_conf(Options(gpus=0)) == ""
    assert "Gres" not in conf(Options(gpus=0))


def test_devices_of_another_name() -> None:
    options = Options(gres="npu", gpus=1, accounting=True)
    text = conf(options)
    assert "GresTypes=npu\n" in text
    assert " Gres=npu:1 " in text
    assert "AccountingStorageTRES=gres/npu\n" in text
    assert " Name=npu File=" in config.gres_conf(options)
    with pytest.raises(DevClusterError, match="--gres n-p: choose a name of letters and digits"):
        Options(gres="n-p")


@pytest.mark.parametrize(
    "changes", [{"nodes": 0}, {"gpus": 64}, {"cpus": 0}, {"preempt_mode": "x"}, {"kill_wait": -1}]
)
def test_impossible_options(changes: dict[str, object]) -> None:
    with pytest.raises(DevClusterError):
        Options(**changes)  # type: ignore[arg-type]


def test_options_are_kept(tmp_path: Path) -> None:
    options = Options(nodes=5, send_user_signal=True)
    options.save(tmp_path / "o.json")
    assert Options.load(tmp_path / "o.json") == options


def test_status_and_down_without_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path / "none")]
    assert cli.main(["status", *folder]) == 1
    assert cli.main(["down", *folder]) == 0
    assert "No cluster runs" in capsys.readouterr().out


def test_missing_programs_without_root_name_the_packages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(install, "find", lambda program: None)
    monkeypatch.setattr("os.getuid", lambda: 1000)
    assert cli.main(["up", "--folder", str(tmp_path / "c")]) == 2
    assert "apt-get install munge slurm-wlm" in capsys.readouterr().err
