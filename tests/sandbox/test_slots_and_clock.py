"""Who gets which cores and GPUs, and what a training is told of its clock."""

import contextlib
from pathlib import Path

import pytest

from agentgolf.domain import Clock, Slot
from agentgolf.errors import EnvironmentNotReadyError, InfrastructureError, UsageError
from agentgolf.sandbox.clock import BudgetClock, SpeedMeter, metered
from agentgolf.sandbox.docker import DockerSandbox, container_options
from agentgolf.sandbox.slots import leased_slots, plan_slots, usable_cores
from tests.conftest import IMAGE
from tests.sandbox.test_sandboxes import Runner

GPUS = ["GPU-a", "GPU-b", "GPU-c"]


def test_cores_and_gpus_are_never_shared() -> None:
    slots = plan_slots(threads=2, gpus=1, jobs=None, cores=range(8), find_gpus=lambda: GPUS)
    assert slots == [
        Slot(cores=(0, 1), gpus=("GPU-a",)),
        Slot(cores=(2, 3), gpus=("GPU-b",)),
        Slot(cores=(4, 5), gpus=("GPU-c",)),
    ]
    assert len(plan_slots(threads=1, gpus=0, jobs=None, cores=range(64))) == 4
    assert plan_slots(threads=1, gpus=0, jobs=1, cores=[3, 5]) == [Slot(cores=(3,))]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(EnvironmentNotReadyError, match="needs 4 GPUs and 3 are free; install the NVIDIA driver"):
        plan_slots(threads=1, gpus=4, jobs=None, cores=range(8), find_gpus=lambda: GPUS)
    with pytest.raises(EnvironmentNotReadyError, match="needs 4 cores and 2 are usable"):
        plan_slots(threads=4, gpus=0, jobs=None, cores=range(2))
    with pytest.raises(UsageError, match="--jobs 3 does not fit: this machine has room for 2"):
        plan_slots(threads=1, gpus=0, jobs=3, cores=range(2))


def test_a_gpu_is_leased_to_one_run_at_a_time(tmp_path: Path) -> None:
    def lease(jobs: int | None) -> contextlib.AbstractContextManager[list[Slot]]:
        return leased_slots(threads=1, gpus=1, jobs=jobs, cores=range(8), find_gpus=lambda: GPUS, folder=tmp_path)

    with lease(2) as first:
        assert [slot.gpus for slot in first] == [("GPU-a",), ("GPU-b",)]
        with lease(None) as second:
            assert [slot.gpus for slot in second] == [("GPU-c",)]
            with pytest.raises(EnvironmentNotReadyError, match="needs 1 GPUs and 0 are free"), lease(None):
                pass
    with lease(None) as again:
        assert len(again) == 3


@pytest.mark.docker
def test_a_gpu_request_reaches_the_engine(tmp_path: Path) -> None:
    """This engine has no GPU driver, and says so: everything before the device is then right."""
    runner = Runner("docker", tmp_path)
    job = runner.job("print(1)")
    job = type(job)(
        **{name: getattr(job, name) for name in job.__slots__} | {"slot": Slot(cores=(0,), gpus=("GPU-a",))}
    )
    (request,) = container_options(job)["device_requests"]
    assert request["DeviceIDs"] == ["GPU-a"] and request["Capabilities"] == [["gpu"]]
    with pytest.raises(InfrastructureError, match="could not select device driver"), DockerSandbox(IMAGE).start(job):
        pass
    assert DockerSandbox(IMAGE).reap({"run": job.labels["run"]}, dry_run=True) == []


def test_the_page_tells_used_seconds_and_speed(tmp_path: Path) -> None:
    clock = BudgetClock(Clock.REFERENCE, tmp_path / "clock")
    clock.speed = 0.5
    clock.update(10.0)
    clock.speed = 1.0
    assert clock.update(14.0) == pytest.approx(9.0)
    assert [float(word) for word in (tmp_path / "clock").read_text().split()] == [9.0, 1.0]
    assert clock.update(13.0) == pytest.approx(9.0), "a reading that falls behind takes nothing back"


def test_cpu_seconds_are_counted_as_they_are() -> None:
    clock = BudgetClock(Clock.CPU)
    clock.update(3.0)
    assert clock.update(7.5) == 7.5


def test_the_meter_measures_this_core() -> None:
    meter = SpeedMeter()
    try:
        speeds = [meter.speed(usable_cores()[0]) for _ in range(3)]
        assert all(0.01 < speed < 100 for speed in speeds)
        clock = BudgetClock(Clock.REFERENCE)
        with metered(clock, Slot(cores=(usable_cores()[0],)), meter):
            assert clock.speed != 1.0
    finally:
        meter.close()
    with pytest.raises(EnvironmentNotReadyError, match="speed meter"):
        meter.speed(0)
