"""The JobSet against the API's reference, and what it does with each exit code."""

import json
import re

import pytest

from launch import gke

KIND = ["--image=europe-docker.pkg.dev/lab/sdd/sdd:1", "--accelerator=tpu-v6e-slice", "--topology=8x8"]
COMMAND = ["--", "run", "experiments/science_qa/qwen3_8b_sdsd.py", "--workdir=/mnt/sdd/runs/a 1"]
MORE = [
    *("--slices=2", "--spot", "--service_account=trainer", "--namespace=lab", "--retries=3"),
    *("--env", "JAX_COMPILATION_CACHE_DIR=/mnt/sdd/cache", "--nfs=10.0.0.2:/sdd"),
]
XPK = ["--xpk", "--image=i", "--cluster=c", "--zone=us-east5-b", "--tpu_type=v6e-64"]

# The fields of jobset.x-k8s.io/v1alpha2 with their JSON types, as api/jobset/v1alpha2/jobset_types.go of
# kubernetes-sigs/jobset has them (commit 0336a8f; onJobFailureMessagePatterns since v0.10.1). A dict is
# an object, a list holds the type of its elements, a set the values that are allowed, and `...` is checked
# elsewhere.
JOBSET = {
    "replicatedJobs": [
        {
            "name": str,
            "groupName": str,
            "template": {"metadata": ..., "spec": ...},
            "replicas": int,
            "dependsOn": [{"name": str, "status": {"Ready", "Complete"}}],
        }
    ],
    "network": {"enableDNSHostnames": bool, "subdomain": str, "publishNotReadyAddresses": bool},
    "successPolicy": {"operator": {"All", "Any"}, "targetReplicatedJobs": [str]},
    "failurePolicy": {
        "maxRestarts": int,
        "restartStrategy": {"Recreate", "BlockingRecreate", "InPlaceRestart"},
        "rules": [
            {
                "name": str,
                "action": {
                    *("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
                    *("RestartJob", "RestartJobAndIgnoreMaxRestarts"),
                },
                "onJobFailureReasons": [str],
                "onJobFailureMessagePatterns": [str],
                "targetReplicatedJobs": [str],
            }
        ],
    },
    "startupPolicy": {"startupPolicyOrder": {"AnyOrder", "InOrder"}},
    "suspend": bool,
    "coordinator": {"replicatedJob": str, "jobIndex": int, "podIndex": int},
    "managedBy": str,
    "ttlSecondsAfterFinished": int,
}
REQUIRED = {"replicatedJobs": ("name", "template"), "rules": ("name", "action")}


def manifest(capsys, *options: str) -> dict:
    assert gke.main(["--dry_run", *KIND, *options, *COMMAND]) == 0
    return json.loads(capsys.readouterr().out)


def check(value, schema, path: str) -> None:
    if schema is ...:
        return
    if isinstance(schema, dict):
        assert isinstance(value, dict), path
        assert set(value) <= set(schema), f"{path}: {set(value) - set(schema)}"
        for key, inner in value.items():
            check(inner, schema[key], f"{path}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), path
        for each in value:
            check(each, schema[0], path)
            assert set(REQUIRED.get(path.split(".")[-1], ())) <= set(each), path
    elif isinstance(schema, set):
        assert value in schema, f"{path}={value}"
    else:
        assert type(value) is schema, f"{path}={value}"


@pytest.mark.parametrize("options", [[], MORE])
def test_the_jobset_has_the_fields_of_the_reference(options, capsys):
    jobset = manifest(capsys, *options)
    assert set(jobset) == {"apiVersion", "kind", "metadata", "spec"}
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2" and jobset["kind"] == "JobSet"
    check(jobset["spec"], JOBSET, "spec")
    for rule in jobset["spec"]["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    # A pod is called NAME-slice-I-J-xxxxx, and a label takes 63 characters.
    assert len(jobset["metadata"]["name"]) <= 40


def test_a_field_that_does_not_exist_is_found(capsys):
    jobset = manifest(capsys)
    for path, value in (
        ("suspended", True),
        ("ttlSecondsAfterFinished", "3"),
        ("successPolicy", {"operator": "No"}),
    ):
        with pytest.raises(AssertionError):
            check({**jobset["spec"], path: value}, JOBSET, "spec")


@pytest.mark.parametrize("options", [[], MORE])
@pytest.mark.parametrize("version", ["1.31", "1.33"])
def test_the_job_is_one_for_kubernetes(options, version, capsys):
    validate = pytest.importorskip("kubernetes_validate")
    (replicated,) = manifest(capsys, *options)["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **replicated["template"]}
    validate.validate(job, version, strict=True)
    job["spec"]["template"]["spec"]["terminationGracePeriod"] = 3
    with pytest.raises(validate.ValidationError):
        validate.validate(job, version, strict=True)


def test_hosts_chips_and_nodes_agree(capsys):
    jobset = manifest(capsys, *MORE)
    (slices,) = jobset["spec"]["replicatedJobs"]
    job = slices["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert slices["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 16  # 64 chips, 4 a host
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert container["command"] == ["sdd", *COMMAND[1:]]
    assert container["env"] == [{"name": "JAX_COMPILATION_CACHE_DIR", "value": "/mnt/sdd/cache"}]
    (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
    assert volume["name"] == mount["name"] and mount["mountPath"] == "/mnt/sdd"
    assert volume["nfs"] == {"server": "10.0.0.2", "path": "/sdd"}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "8x8",
        "cloud.google.com/gke-spot": "true",
    }


def pod_failed(rules: list[dict], exit_code: int, disrupted: bool) -> tuple[str, str]:
    """(reason, message) of the Job, as the Job controller of Kubernetes words it."""
    for index, rule in enumerate(rules):
        codes = rule.get("onExitCodes", {}).get("values", [])
        conditions = [c["type"] for c in rule.get("onPodConditions", []) if c["status"] == "True"]
        if exit_code in codes:
            what = f"Container sdd for pod default/x failed with exit code {exit_code}"
        elif disrupted and "DisruptionTarget" in conditions:
            what = "Pod default/x has condition DisruptionTarget"
        else:
            continue
        return "PodFailurePolicy", f"{what} matching {rule['action']} rule at index {index}"
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"


@pytest.mark.parametrize(
    "exit_code, disrupted, action",
    [
        (75, False, "RestartJobSetAndIgnoreMaxRestarts"),
        (75, True, "RestartJobSetAndIgnoreMaxRestarts"),
        (137, True, "RestartJobSetAndIgnoreMaxRestarts"),  # the cluster took the node before it had saved
        (76, False, "RestartJobSet"),
        *((code, False, "FailJobSet") for code in (1, 2, 70, 137)),
    ],
)
def test_what_follows_each_exit_code(exit_code, disrupted, action, capsys):
    spec = manifest(capsys)["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    reason, message = pod_failed(job["podFailurePolicy"]["rules"], exit_code, disrupted)

    def matches(rule: dict) -> bool:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        return reason in rule.get("onJobFailureReasons", [reason]) and any(
            re.search(pattern, message) for pattern in patterns
        )

    first = next(rule for rule in spec["failurePolicy"]["rules"] if matches(rule))
    assert first["action"] == action


@pytest.mark.parametrize("name, options", [("gke_one_slice.json", []), ("gke_two_slices.json", MORE)])
def test_dry_run_prints_the_manifest(name, options, golden, capsys):
    gke.main(["--dry_run", *KIND, *options, *COMMAND])
    golden(name, capsys.readouterr().out)


def test_dry_run_of_xpk(golden, capsys):
    assert gke.main(["--dry_run", *XPK, "--slices=2", *COMMAND]) == 0
    golden("gke_xpk.txt", capsys.readouterr().out)


def test_what_kubectl_gets_is_what_was_printed(tmp_path, monkeypatch, capsys):
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/args; cat > {tmp_path}/stdin; exit 3\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gke.main([*KIND, *COMMAND]) == 3
    printed = capsys.readouterr().out
    assert printed.endswith("kubectl apply -f -\n")
    assert (tmp_path / "args").read_text() == "apply -f -\n"
    assert printed.startswith((tmp_path / "stdin").read_text())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*KIND, "--topology=8by8"], "valid: such as 4x8"),
        ([*KIND, "--topology=3x3"], "9 chips, 4 a host"),
        ([*KIND, "--name=Big_Job"], "valid: lower case letters"),
        ([*KIND[:1]], "--accelerator is missing"),
        ([*XPK[:-1]], "--tpu_type is missing"),
        ([*XPK, "--nfs=a:/b"], "xpk storage attach"),
        ([*KIND, "--nfs=/b"], "valid: HOST:/SHARE"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        gke.main([*arguments, *COMMAND])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_the_hosts_do_not_share_is_refused(capsys):
    with pytest.raises(SystemExit):
        gke.main([*KIND, "--", "run", "c.py", "--workdir=runs/a"])
    assert "valid: such as /mnt/sdd/runs/NAME" in capsys.readouterr().err.splitlines()[-1]
