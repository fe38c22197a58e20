"""Everything under deploy/ is what batchonnx renders, and what the systems it is for take."""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from batchonnx.cli import main
from batchonnx.schedule.render.ray_pods import RAY_VERSION
from batchonnx.schedule.render.target import RenderOptions, render_schedule
from batchonnx.schedule.scheduled import open_scheduled
from tests.manifests.validate import validate
from tests.scripts import module_at

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DAILY, ON_RAY = ROOT / "jobs" / "daily.yaml", ROOT / "jobs" / "daily-ray.yaml"
MANIFESTS = sorted([*DEPLOY.glob("kuberay/*.yaml"), *DEPLOY.glob("kubernetes/*.yaml")])
DOCKERFILES = sorted(DEPLOY.glob("docker/Dockerfile.*"))
TICK = datetime(2026, 11, 23, 1, 15, tzinfo=UTC)
"""Of jobs/daily.yaml: a quarter past two in Berlin."""


def rendering() -> ModuleType:
    return module_at(DEPLOY / "render.py")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(path: Path, kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents(path) if document["kind"] == kind)
    return found


@pytest.mark.parametrize("name", sorted(rendering().rendered()))
def test_a_file_is_what_is_rendered(name: str) -> None:
    assert (DEPLOY / name).read_text() == rendering().rendered()[name], "run: python deploy/render.py"


def test_nothing_else_lies_in_the_folders_of_rendered_files() -> None:
    rendered = {DEPLOY / name for name in rendering().rendered()}
    by_hand = {DEPLOY / "ray" / name for name in ("aws.yaml", "gcp.yaml", "drain_on_notice.py")}
    others = ("docker", "prometheus", "grafana")
    found = {path for path in DEPLOY.glob("*/*") if path.is_file() and path.parent.name not in others}
    assert found == rendered | by_hand


# --- Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_manifest_is_one_that_an_api_server_takes(path: Path) -> None:
    assert validate(path.read_text()) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("backoffLimit", "backofLimit"), 'unknown field "backofLimit"'),
        (("K8sJobMode", "K8sMode"), "'K8sMode' is not one of"),
        (("maxReplicas: 8", "maxReplicas: many"), "'many' is not of type 'integer'"),
        (("imagePullPolicy", "x"), ""),
        (("kind: RayCronJob", "kind: RayCron"), "no schema for RayCron"),
        (("name: daily-digits\n", f"name: {'d' * 40}\n"), "is too long"),
    ],
)
def test_a_manifest_that_is_wrong_is_found_so(change: tuple[str, str], told: str) -> None:
    text = (DEPLOY / "kuberay" / "raycronjob.yaml").read_text()
    changed = text.replace(*change)
    found = " ".join(str(problem) for problem in validate(changed))
    assert told in found
    assert (changed == text) == (found == "")


def test_the_rayjob_that_a_cronjob_makes_is_one_that_an_api_server_takes() -> None:
    maps = [d for d in documents(DEPLOY / "kubernetes" / "cronjob-rayjob.yaml") if d["kind"] == "ConfigMap"]
    (text,) = (d["data"]["rayjob.yaml"] for d in maps if "rayjob.yaml" in d["data"])
    minute = int(TICK.timestamp()) // 60
    filled = text.replace("TICK_MINUTE", str(minute)).replace("TICK_SECOND", str(minute * 60))
    assert validate(filled) == []
    assert f"--at @{int(TICK.timestamp())}" in yaml.safe_load(filled)["spec"]["entrypoint"]


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pod_specs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_specs(inner)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_pods_aren_t_root_and_have_an_account_and_limits_that_are_there(path: Path) -> None:
    accounts = {d["metadata"]["name"] for d in documents(path) if d["kind"] == "ServiceAccount"}
    maps = {d["metadata"]["name"] for d in documents(path) if d["kind"] == "ConfigMap"}
    pods = list(pod_specs(documents(path)))
    assert pods
    for pod in pods:
        assert pod["serviceAccountName"] in accounts
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {v["configMap"]["name"] for v in volumes.values() if "configMap" in v} <= maps
        for container in pod["containers"]:
            assert container["resources"]["limits"]["memory"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert re.search(r":[\w.-]*\d", container["image"]), "pinned"
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()


def test_no_manifest_holds_a_secret_but_by_name() -> None:
    for path in MANIFESTS:
        assert not [document for document in documents(path) if document["kind"] == "Secret"]
        assert "AWS_SECRET" not in path.read_text().replace("AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL", "")


def test_ray_pods_are_scraped_and_workers_are_drained_before_they_end() -> None:
    spec = of_kind(DEPLOY / "kuberay" / "raycluster.yaml", "RayCluster")["spec"]
    assert spec["rayVersion"] == RAY_VERSION
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    for template in [spec["headGroupSpec"]["template"], *(group["template"] for group in groups.values())]:
        annotations = template["metadata"]["annotations"]
        ports = [port["containerPort"] for port in template["spec"]["containers"][0]["ports"]]
        assert annotations["prometheus.io/scrape"] == "true"
        assert int(annotations["prometheus.io/port"]) in ports
    for group in groups.values():
        pod = group["template"]["spec"]
        (*_, script) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert script.startswith("ray drain-node ")
        seconds = int(re.search(r"deadline-remaining-seconds (\d+)", script)[1])  # type: ignore[index]
        assert pod["terminationGracePeriodSeconds"] > seconds
    assert groups["spot"]["minReplicas"] == 0
    assert groups["spot"]["template"]["spec"]["tolerations"]
    assert "tolerations" not in groups["steady"]["template"]["spec"]


def test_ray_knows_the_drain_command_with_its_options() -> None:
    from ray.scripts.scripts import cli

    groups = of_kind(DEPLOY / "kuberay" / "raycluster.yaml", "RayCluster")["spec"]["workerGroupSpecs"]
    script = groups[0]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][2]
    words = shlex.split(script.partition("&&")[0])
    command = cli.get_command(None, words[1])
    assert command is not None
    command.make_context(words[1], words[2:])


def test_the_images_have_the_ray_that_the_cluster_is_said_to_have() -> None:
    assert f"ray=={RAY_VERSION}" in (ROOT / "constraints.txt").read_text().splitlines()


def test_a_cluster_s_schedule_is_the_job_s() -> None:
    cron = of_kind(DEPLOY / "kuberay" / "raycronjob.yaml", "RayCronJob")["spec"]
    assert (cron["schedule"], cron["timeZone"]) == ("15 2 * * *", "Europe/Berlin")
    for name in ("cronjob.yaml", "cronjob-rayjob.yaml"):
        cron = of_kind(DEPLOY / "kubernetes" / name, "CronJob")["spec"]
        assert (cron["schedule"], cron["timeZone"]) == ("15 2 * * *", "Europe/Berlin")


def test_the_job_that_is_carried_along_is_the_file() -> None:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] == "ConfigMap" and "job.yaml" in document["data"]:
                file = DAILY if path.name == "cronjob.yaml" else ON_RAY
                assert document["data"]["job.yaml"] == file.read_text()


# --- what runs at a tick: the scripts themselves, with a recorder in the place of what they call


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A folder for PATH; what is put there with `record` writes its arguments down, one a line."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def record(folder: Path, name: str, script: str = "") -> Path:
    told = folder / f"{name}.told"
    path = folder / name
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {told}\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return told


def sh(script: str, folder: Path, **env: str) -> None:
    path = f"{folder}:{os.environ['PATH']}"
    subprocess.run(["/bin/sh", "-euc", script], env={**os.environ, "PATH": path, **env}, check=True)


def tick_told(words: Sequence[str]) -> int:
    """The time that `schedule tick` was told, in seconds, after the command line has read all its options."""
    assert list(words[:2]) == ["schedule", "tick"]
    group = main.get_command(None, "schedule")  # type: ignore[arg-type]
    command = group.commands["tick"]  # type: ignore[union-attr]
    at = command.make_context("tick", list(words[2:])).params["at"]
    return int(at[1:]) if at.startswith("@") else int(datetime.fromisoformat(at).timestamp())


def test_a_cronjob_s_pod_names_its_tick_however_late_it_runs(recorder: Path) -> None:
    told = record(recorder, "batchonnx")
    pod = next(pod_specs(of_kind(DEPLOY / "kubernetes" / "cronjob.yaml", "CronJob")))
    script = pod["containers"][0]["command"][2]
    sh(script, recorder, JOB_NAME=f"daily-digits-{int(TICK.timestamp()) // 60}")
    assert tick_told(told.read_text().splitlines()) == TICK.timestamp()
    told.unlink()
    sh(script, recorder, JOB_NAME="daily-digits-manual-x7k")
    assert abs(tick_told(told.read_text().splitlines()) - datetime.now(UTC).timestamp()) < 120


def test_a_cronjob_makes_one_rayjob_for_a_tick_however_often_it_is_started(
    recorder: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made.yaml"
    record(recorder, "kubectl", f"case $1 in get) test -f {made} ;; create) cat >> {made} ;; esac")
    path = DEPLOY / "kubernetes" / "cronjob-rayjob.yaml"
    maps = [document for document in documents(path) if document["kind"] == "ConfigMap"]
    (text,) = (d["data"]["rayjob.yaml"] for d in maps if "rayjob.yaml" in d["data"])
    (tmp_path / "rayjob.yaml").write_text(text)
    pod = next(pod_specs(of_kind(path, "CronJob")))
    script = pod["containers"][0]["command"][2].replace("/etc/batchonnx", str(tmp_path))
    minute = int(TICK.timestamp()) // 60
    for _ in range(2):
        sh(script, recorder, JOB_NAME=f"daily-digits-{minute}")
    assert validate(made.read_text()) == []
    job = yaml.safe_load(made.read_text())
    assert job["metadata"]["name"] == f"daily-digits-{minute}"
    assert tick_told(job["spec"]["entrypoint"].split()[1:]) == TICK.timestamp()


def test_cron_s_line_names_the_minute_in_which_it_is_started(recorder: Path) -> None:
    told = record(recorder, "batchonnx")
    lines = (DEPLOY / "cron" / "daily-digits.cron").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
    assert settings["CRON_TZ"] == "Europe/Berlin"
    line = lines[-1]
    assert line.startswith("15 2 * * * ")
    command = line.removeprefix("15 2 * * * ")
    assert not re.search(r"(?<!\\)%", command), "cron would take it for the end of the line"
    sh(command.replace("\\%", "%"), recorder)
    assert 0 <= datetime.now(UTC).timestamp() - tick_told(told.read_text().splitlines()) < 120


def test_ray_s_script_submits_a_scheduler_once(recorder: Path) -> None:
    told = record(recorder, "ray")
    sh((DEPLOY / "ray" / "start-scheduler.sh").read_text(), recorder)
    words = told.read_text().splitlines()
    options, command = words[: words.index("--")], words[words.index("--") + 1 :]
    assert options[:2] == ["job", "submit"]
    assert options[options.index("--submission-id") + 1] == "daily-digits-scheduler"
    assert json.loads(options[options.index("--runtime-env-json") + 1])["env_vars"]
    assert command == ["batchonnx", "schedule", "run", "daily-ray.yaml", "--quiet"]
    from ray.dashboard.modules.job.cli import submit

    submit.make_context("submit", [*options[2:], "--", *command])


def test_the_dag_runs_each_tick_at_its_time(monkeypatch: pytest.MonkeyPatch, recorder: Path) -> None:
    """Airflow itself is too large to be installed for tests: its four names are taken by recorders."""
    text = (DEPLOY / "airflow" / "daily_digits.py").read_text()
    made: dict[str, Any] = {}

    class Dag:
        def __init__(self, **keys: Any) -> None:
            made["dag"] = keys

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    names = {
        "pendulum": {"datetime": lambda *date, tz: (date, tz)},
        "airflow.sdk": {"DAG": Dag},
        "airflow.timetables.trigger": {"CronTriggerTimetable": lambda cron, timezone: (cron, timezone)},
        "airflow.providers.standard.operators.bash": {"BashOperator": lambda **keys: made.update(task=keys)},
    }
    for name, values in names.items():
        parts = name.split(".")
        for end in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(parts[end - 1]))
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    imported = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", *names} - {"pendulum"}
    exec(compile(text, "daily_digits.py", "exec"), {})
    assert made["dag"]["schedule"] == ("15 2 * * *", "Europe/Berlin")
    assert made["dag"]["start_date"] == ((2026, 11, 1), "Europe/Berlin")
    assert made["dag"]["catchup"] is False
    told = record(recorder, "batchonnx")
    for run in (
        SimpleNamespace(logical_date=TICK, run_after=None),
        SimpleNamespace(logical_date=None, run_after=TICK),
    ):
        # As Jinja would: the expression is one of Python's, too.
        command = re.sub(
            r"\{\{(.*?)\}\}",
            lambda match, run=run: eval(match[1], {"dag_run": run}),
            made["task"]["bash_command"],
        )
        sh(command, recorder)
        assert tick_told(told.read_text().splitlines()) == TICK.timestamp()
        told.unlink()


# --- jobs that can't be carried along


def test_a_job_with_paths_of_this_machine_is_told_the_way_out(tmp_path: Path) -> None:
    text = ON_RAY.read_text().replace("s3://models/digits/digits.onnx", "models/digits.onnx")
    (tmp_path / "job.yaml").write_text(text)
    command = ["schedule", "render", str(tmp_path / "job.yaml"), "--target", "kuberay"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert "a pod can't see model.path" in done.stderr
    assert "--job-path" in done.stderr
    done = CliRunner().invoke(main, [*command, "--job-path", "/srv/jobs/job.yaml"])
    assert done.exit_code == 0
    assert validate(done.stdout) == []
    assert "/srv/jobs/job.yaml" in done.stdout


@pytest.mark.parametrize("more", [["--target", "kuberay"], ["--target", "kubernetes", "--cluster"]])
def test_a_job_that_would_leave_a_cluster_idle_is_refused(more: list[str]) -> None:
    done = CliRunner().invoke(main, ["schedule", "render", str(DAILY), *more])
    assert done.exit_code == 2
    assert "engine: {name: ray" in done.stderr


def test_variables_and_names_are_rendered_so_that_every_system_reads_them(
    tmp_path: Path, recorder: Path
) -> None:
    name, who = "Ünsere tägliche Bewertung aller Ziffern, v2", "it's 100% $HOME"
    text = ON_RAY.read_text().replace("name: daily-digits", f"name: {name}")
    (tmp_path / "job.yaml").write_text(text.replace("s3://lake/digits/", "s3://lake/{{ who }}/"))
    daily = open_scheduled(tmp_path / "job.yaml", {"who": who})
    for is_cluster in (False, True):
        manifest = render_schedule(daily, "kubernetes", RenderOptions("x:1", is_cluster=is_cluster))
        assert validate(manifest) == []
    cluster = render_schedule(daily, "kuberay", RenderOptions("x:1"))
    assert validate(cluster) == []
    scripts = [
        next(pod_specs(list(yaml.safe_load_all(manifest))))["containers"][0]["command"][2]
        for manifest in [render_schedule(daily, "kubernetes", RenderOptions("x:1"))]
    ]
    scripts.append(list(yaml.safe_load_all(cluster))[-1]["spec"]["jobTemplate"]["entrypoint"])
    scripts.append(render_schedule(daily, "cron", RenderOptions()).splitlines()[-1])
    scripts[-1] = scripts[-1].removeprefix("15 2 * * * ").replace("\\%", "%")
    for script in scripts:
        told = record(recorder, "batchonnx")
        sh(script, recorder, JOB_NAME="x-29412345")
        assert f"who={who}" in told.read_text().splitlines()
        told.unlink()


# --- images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_has_nothing_that_hadolint_finds(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_number_and_can_have_another_base(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 65532:65532"]
    (base,) = (line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE="))
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base), "pinned to a release"
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"${BASE}"}
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    for name in [name for names in copied for name in names]:
        assert (ROOT / name).exists()
        assert f"!{Path(name).name}" in (ROOT / ".dockerignore").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_the_image_is_built_and_scores_as_its_own_user() -> None:
    """Without rights of its own buildah wants STORAGE_DRIVER=vfs and BUILDAH_ISOLATION=chroot."""
    builder = shutil.which("buildah")
    if builder is None:
        pytest.skip("there is no buildah here")
    base = os.environ.get("BATCHONNX_BASE_IMAGE")
    if base is None:
        pytest.skip("name a local image with Python and bash in BATCHONNX_BASE_IMAGE")
    build = [builder, "build", "--format", "docker", "--build-arg", f"BASE={base}"]
    # Certificates of this machine, since its package index may have one of its own.
    build += [
        "--volume",
        "/etc/ssl/certs:/etc/ssl/certs:ro",
        "-f",
        str(DOCKERFILES[0]),
        "-t",
        "batchonnx:test",
    ]
    subprocess.run([*build, "."], cwd=ROOT, check=True)
    begun = subprocess.run([builder, "from", "batchonnx:test"], capture_output=True, text=True, check=True)
    container = begun.stdout.strip()

    def told(command: str) -> str:
        run = [
            builder,
            "run",
            "--volume",
            f"{ROOT / 'jobs'}:/jobs:ro",
            container,
            "--",
            "/bin/sh",
            "-c",
            command,
        ]
        return subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()

    try:
        assert told("id -u") == "65532"
        assert told("batchonnx --version").startswith("batchonnx ")
        assert RAY_VERSION in told("ray --version")
        summary = told("cp -r /jobs /tmp/jobs && batchonnx run /tmp/jobs/score.yaml --json")
        assert json.loads(summary)["predicted"] == 1_797
    finally:
        subprocess.run([builder, "rm", container], check=False, capture_output=True)


# --- machines of clouds


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_cluster_file_is_one_that_ray_up_takes(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((DEPLOY / "ray" / f"{name}.yaml").read_text())
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["provider"]["type"] == name
    with pytest.raises(Exception, match="max_wrkers"):
        validate_config(prepare_config({**config, "max_wrkers": 3}))
    for source in config["file_mounts"].values():
        assert (ROOT / source).is_dir()
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["spot"]["min_workers"] == 0
    assert "spot" in json.dumps(types["spot"]["node_config"]).lower()
    assert "spot" not in json.dumps(types["steady"]["node_config"]).lower()


class Metadata(BaseHTTPRequestHandler):
    """A cloud's metadata service: a machine that is told its end with the third question."""

    asked: list[str]
    cloud: str

    def do_PUT(self) -> None:
        self._answer(b"token")

    def do_GET(self) -> None:
        self.asked.append(self.path)
        is_late = len(self.asked) >= 3
        if self.cloud == "gcp":
            self._answer(b"TRUE" if is_late else b"FALSE")
        elif is_late and self.headers["X-aws-ec2-metadata-token"] == "token":
            self._answer(b'{"action": "terminate"}')
        else:
            self.send_error(404)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_a_spot_machine_is_drained_when_its_cloud_gives_notice(cloud: str, recorder: Path) -> None:
    told = record(recorder, "ray")
    handler = type("Service", (Metadata,), {"asked": [], "cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        env = {
            **os.environ,
            "PATH": f"{recorder}:{os.environ['PATH']}",
            "METADATA_URL": url,
            "EVERY_S": "0.01",
        }
        script = DEPLOY / "ray" / "drain_on_notice.py"
        done = subprocess.run([sys.executable, script, cloud], env=env, timeout=60, check=False)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0
    assert told.read_text().splitlines()[:3] == ["drain-node", "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    assert len(handler.asked) == 3
