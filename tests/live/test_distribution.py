"""A fixed model on several replicas has the losses that it has on one, up to the rounding of sums."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
ULPS = 2.0**-23 * 8  # float32, sums of 32 numbers in another order


def start(module: str, strategy: str, worker: dict[str, object] | None = None) -> subprocess.Popen[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    if worker is not None:
        environment["TF_CONFIG"] = json.dumps(worker)
    command = [sys.executable, "-W", "ignore", "-m", "tests.live.replicas", module, strategy]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def losses(process: subprocess.Popen[str]) -> dict[str, list[float]]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])  # type: ignore[no-any-return]


def free_ports(count: int) -> list[int]:
    with_sockets = [socket.socket() for _ in range(count)]
    for held in with_sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in with_sockets]
    for held in with_sockets:
        held.close()
    return ports


@pytest.mark.parametrize("module", ["keras", "tf_keras"])
def test_replicas_and_workers_train_as_one(module: str) -> None:
    one = losses(start(module, "one"))
    assert one["fit"][-1] < one["fit"][0] and one["loop"][-1] < one["loop"][0]
    mirrored = losses(start(module, "mirrored"))
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = [
        start(module, "workers", {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]
    for several in (mirrored, *map(losses, workers)):
        assert "loop" in several
        for kind, found in several.items():
            np.testing.assert_allclose(found, one[kind], rtol=ULPS, err_msg=kind)
