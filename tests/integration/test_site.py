"""The documentation as a site: built without a warning, its links lead somewhere, what it shows is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchonnx import api
from batchonnx.job.load import job_from_dict
from tests import models
from tests.cluster.head import free_ports, kill_all_of
from tests.integration.test_docs import blocks, commands
from tests.scripts import module_at

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = sorted(DOCS.glob("from-*.md"))
MINUTE_S = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("reference"))
    shutil.copy(ROOT / "zensical.toml", root)
    assert module_at(ROOT / "deploy" / "docs.py").build(root) == 0
    return root / "site"


class Page(HTMLParser):
    """What a page links to, and the places in it that others can link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.add(value)
            if name == "id" and value:
                self.places.add(value)


def test_every_link_of_the_site_leads_to_a_page_and_a_place_in_it(site: Path) -> None:
    # 404.html is shown at any address, so that it links from the root.
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) >= len(list(DOCS.rglob("*.md")))
    lost = [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        for link in page.links
        if not re.match(r"\w+:", link) and not leads(path, link, site, pages)
    ]
    assert lost == []


def leads(path: Path, link: str, site: Path, pages: dict[Path, Page]) -> bool:
    name, _, place = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file() or not target.is_relative_to(site.resolve()):
        return False
    return not place or place.startswith("__") or place in pages[target].places


def test_a_page_that_nobody_is_led_to_is_a_decision() -> None:
    config = (ROOT / "zensical.toml").read_text()
    led_to = set(re.findall(r'= "([\w/-]+\.md)"', config)) - {
        "reference/commands.md",
        "reference/job-file.md",
    }
    assert led_to == {str(path.relative_to(DOCS)) for path in DOCS.glob("*.md")}


def test_the_reference_has_every_key_and_every_command(site: Path) -> None:
    keys, told = (Page(site / "reference" / name / "index.html") for name in ("job-file", "commands"))
    assert {"job", "model", "engine", "schedule", "storage", "detect"} <= keys.places
    assert {f"batchonnx-{'-'.join(words)}" for words in commands()} <= told.places


@pytest.mark.parametrize("page", ELSEWHERE, ids=lambda page: page.stem)
def test_a_job_that_replaces_another_tool_s_is_a_job(page: Path) -> None:
    (text,) = blocks(page, "yaml")
    filled = text.replace("{{ day }}", "2026-11-22")
    assert job_from_dict(yaml.safe_load(filled)).job.model is not None


def test_what_is_explained_as_said_is_said_somewhere() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "batchonnx").rglob("*.py"))
    said = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(said) > 25
    assert [title for title in said if title not in code] == []


@pytest.mark.frameworks
@pytest.mark.timeout(300)
def test_ray_data_s_program_and_the_job_beside_it_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: Ray has one cluster in each."""
    pytest.importorskip("ray.data", reason="ray[data] isn't installed")
    page = DOCS / "from-ray-data.md"
    (program,), (job,) = blocks(page, "python"), blocks(page, "yaml")
    rng = np.random.default_rng(3)
    (tmp_path / "rows").mkdir()
    columns = {f"f{i}": rng.standard_normal(5000).astype(np.float32) for i in range(4)}
    pq.write_table(pa.table({"id": range(5000), **columns}), tmp_path / "rows" / "a.parquet")
    models.linear(tmp_path / "model.onnx", 4, 1)
    (tmp_path / "program.py").write_text(program)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = pq.read_table(tmp_path / "scores").sort_by("id")
    shutil.rmtree(tmp_path / "scores")
    (tmp_path / "job.yaml").write_text(job.replace("engine: {name: ray}", ""))
    monkeypatch.chdir(tmp_path)
    ours = pq.read_table(api.run("job.yaml").output).sort_by("id")
    assert ours["id"].equals(theirs["id"])
    np.testing.assert_allclose(
        np.ravel(ours["score"].to_pylist()), np.ravel(theirs["score"].to_pylist()), rtol=1e-5, atol=1e-6
    )


# --- the first page, as somebody would follow it


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """What the page wants, and an environment for its commands; their cluster is known by its home."""
    home = tmp_path / "project"
    shutil.copytree(ROOT / "jobs", home / "jobs", ignore=shutil.ignore_patterns("out", "flights*"))
    place = Path(f"/tmp/bw{os.getpid()}")  # short: there will be sockets below it
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AWS_"))}
    variables |= {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "RAY_TMPDIR": str(place),
        "RAY_USAGE_STATS_ENABLED": "0",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    place.mkdir()
    yield home, variables
    kill_all_of(place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_page_leads_from_nothing_to_a_job_that_a_cluster_runs_by_itself(
    checkout: tuple[Path, dict[str, str]],
) -> None:
    home, variables = checkout
    gcs, dashboard, agent, grpc, client, metrics = free_ports(6)
    ports = f"--dashboard-agent-listen-port={agent} --dashboard-agent-grpc-port={grpc} --num-cpus=2"
    ports += f" --ray-client-server-port={client} --metrics-export-port={metrics}"
    text = "\n".join(blocks(DOCS / "index.md", "sh"))
    # It is installed already; other clusters of this machine may have the usual ports.
    text = re.sub(r"^python3 -m venv.*|^pip install.*|^ray stop$", "", text, flags=re.MULTILINE)
    text = text.replace("8265", str(dashboard)).replace("--port=6379", f"--port={gcs} {ports}")
    begun, found, end = text.partition("batchonnx runs nightly/days")
    assert found
    script = f"set -euo pipefail\n{begun}\nsleep {2 * MINUTE_S}\n{found}{end}"
    told = subprocess.run(
        ["bash", "-c", script], cwd=home, env=variables, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout[-2000:] + told.stderr[-3000:]
    assert "proved: 1,797 rows in" in told.stdout
    assert len(list((home / "nightly" / "days").glob("at=*/_SUCCESS"))) >= 1
    assert re.search(r"at=\d{4}-", told.stdout.partition("start-scheduler")[2] or told.stdout)
