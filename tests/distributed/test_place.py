"""Where a process stands in a job, from flags and from what launchers set."""

import pytest

from sdd import processes
from sdd.processes import Place, agreement, barrier, first_alone, place
from sdd.typed import ConfigError

ALONE = {"JAX_PLATFORMS": "cpu"}
WHOLE = {"JAX_COORDINATOR_ADDRESS": "host:12", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


@pytest.mark.parametrize(
    ("given", "environ", "found"),
    [
        (Place("host:12", 3, 2), {}, Place("host:12", 3, 2)),
        (Place(), WHOLE, Place("host:12", 3, 2)),
        (Place(process_id=0), WHOLE, Place("host:12", 3, 0)),  # flags count more
        (Place("other:7", 2, 1), WHOLE, Place("other:7", 2, 1)),
        (Place("host:12", 1, 0), {}, Place("host:12", 1, 0)),
        (Place("[::1]:12", 2, 0), {}, Place("[::1]:12", 2, 0)),
    ],
)
def test_a_whole_place(given, environ, found):
    assert place(given, ALONE | environ) == found


@pytest.mark.parametrize(
    "environ",
    [
        {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"},
        {"TPU_PROCESS_ADDRESSES": "10.0.0.1:8476,10.0.0.2:8476"},
        {"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1"},
    ],
)
def test_jax_finds_the_others_itself(environ):
    assert place(Place(), ALONE | environ) == Place()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS": "4",
            "SLURM_JOB_NUM_NODES": "4",
        },  # a batch script, without srun
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "7"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"JAX_COORDINATOR_ADDRESS": "", "JAX_NUM_PROCESSES": "", "JAX_PROCESS_ID": ""},
    ],
)
def test_alone(environ):
    assert place(Place(), ALONE | environ) is None


@pytest.mark.parametrize(
    ("platforms", "chips", "libtpu", "found"),
    [
        (None, True, True, Place()),
        ("tpu,cpu", True, True, Place()),
        ("cpu", True, True, None),
        (None, False, True, None),
        (None, True, False, None),
    ],
)
def test_a_host_with_tpu_chips(monkeypatch, platforms, chips, libtpu, found):
    """Its metadata tell jax of the other hosts, without any variable."""
    monkeypatch.setattr(processes.os.path, "exists", lambda path: chips and path == "/dev/vfio/0")
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: libtpu or None)
    assert place(Place(), {"JAX_PLATFORMS": platforms} if platforms else {}) == found


@pytest.mark.parametrize(
    ("given", "environ", "says"),
    [
        (Place("host:12"), {}, "needs all of --coordinator, --num_processes and --process_id"),
        (Place(num_processes=2), {}, "needs all of"),
        (Place(process_id=0), {}, "needs all of"),
        (Place("host:12", process_id=1), {}, "needs all of"),
        (
            Place(),
            {"JAX_NUM_PROCESSES": "2"},
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID",
        ),
        (Place("host:12"), {"SLURM_STEP_NUM_TASKS": "4"}, "needs all of"),  # half of it by hand, half not
        (Place("host", 2, 0), {}, "--coordinator=host: valid: HOST:PORT"),
        (Place(":12", 2, 0), {}, "--coordinator=:12: valid: HOST:PORT"),
        (Place("host:", 2, 0), {}, "valid: HOST:PORT"),
        (Place("host:abc", 2, 0), {}, "valid: HOST:PORT"),
        (Place("host:12", 2, 2), {}, "--process_id=2 with --num_processes=2"),
        (Place("host:12", 2, -1), {}, "--process_id=-1"),
        (Place("host:12", 0, 0), {}, "--num_processes=0"),
        (Place(), WHOLE | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two: valid: a whole number"),
        (Place(), WHOLE | {"JAX_PROCESS_ID": "1.5"}, "JAX_PROCESS_ID=1.5: valid: a whole number"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given, environ, says):
    with pytest.raises(ConfigError) as caught:
        place(given, ALONE | environ)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_one_process_agrees_with_itself_and_waits_for_nobody():
    agreed = agreement("alone")
    assert [agreed(asked) for asked in (False, True, False)] == [False, True, False]
    barrier("alone", seconds=0.0)
    with first_alone("alone"):
        pass
