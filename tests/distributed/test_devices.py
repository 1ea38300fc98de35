"""Devices of workers."""

import multiprocessing

from astrogenspec.distributed import devices


def test_workers_share_the_devices_evenly(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    for number, device in enumerate(["cuda:0", "cuda:1", "cuda:2", "cuda:0"]):
        monkeypatch.setattr(devices, "worker_number", lambda number=number: number)
        assert devices.own_device("cuda") == device
    assert devices.own_device("cpu") == "cpu" and devices.own_device("cuda:2") == "cuda:2"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert devices.own_device("cuda") == "cuda"


def test_processes_of_a_pool_are_numbered():
    assert devices.worker_number() == 0
    context = multiprocessing.get_context("spawn")
    numbers = []
    for _ in range(2):
        with context.Pool(1) as pool:
            numbers.append(pool.apply(devices.worker_number))
    assert numbers[1] == numbers[0] + 1
