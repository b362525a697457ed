"""The devices that tests of the CUDA path run on: g++'s on the CPU, and the GPU where there is one."""

import pytest

from graph.device.cuda_device import CudaDevice
from graph.device.launch import Device
from graph.errors import GraphError
from tests.cuda_host.host import GXX, HostDevice

DEVICES = [pytest.param("g++"), pytest.param("gpu", marks=pytest.mark.cuda)]


def opened(kind: str) -> Device:
    """A device, or a skipped test that says what is missing."""
    if kind != "gpu":
        if GXX is None:
            pytest.skip("no g++ here to compile the CUDA sources for the CPU")
        return HostDevice(backwards=kind == "g++ backwards")
    try:
        return CudaDevice()
    except GraphError as error:
        pytest.skip(f"{error}: run `make gpu-check` where there is one")
