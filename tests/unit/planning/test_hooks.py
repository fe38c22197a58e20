"""Functions of the user's: imported, and told about in the words of their file and line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchonnx.errors import HookError
from batchonnx.planning.hooks import HookExit, forget_hooks, hook_sources, load_hook, raised_at

Load = Callable[[str], Callable[..., Any]]


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Writes the text of a module of its own name and loads its `f`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"hook_{abs(hash(request.node.name))}"

    def write(text: str) -> Callable[..., Any]:
        (tmp_path / f"{name}.py").write_text(text)
        return load_hook(f"{name}:f", tmp_path, "job.yaml:3  outputs.s.python")

    return write


class TestImporting:
    @pytest.mark.parametrize(
        ("text", "found", "line"),
        [
            ("import os\ndef f(v) return v\n", "SyntaxError", 2),
            ("from os import nonesuch\n", "ImportError", 1),
            ("import os\nimport nonesuch_package\n", "nonesuch_package", 2),
            ("\n\n1 / 0\n", "ZeroDivisionError", 3),
            ("import json\njson.loads('{')\n", "JSONDecodeError", 2),
            ("import sys\nsys.exit(4)\n", "SystemExit: 4", 2),
        ],
    )
    def test_a_module_that_fails_is_told_by_its_own_line(
        self, load: Load, text: str, found: str, line: int
    ) -> None:
        with pytest.raises(HookError, match="importing the hook") as failed:
            load(text)
        facts = failed.value.problems[0].facts
        assert found in facts["found"]
        assert f".py:{line}" in facts["at"]
        assert facts["at"].startswith("/")
        assert "hook_" in facts["at"]

    def test_a_module_that_is_not_there_is_told_apart_from_one_that_it_imports(self, tmp_path: Path) -> None:
        with pytest.raises(HookError, match='no module "nonesuch_hooks" for the hook'):
            load_hook("nonesuch_hooks:f", tmp_path, "job.yaml")


class TestCalling:
    def test_a_hook_that_ends_the_process_raises_instead_at_its_own_line(self, load: Load) -> None:
        function = load("import sys\ndef f(v):\n    sys.exit(3)\n")
        with pytest.raises(HookExit, match="SystemExit: 3") as failed:
            function(1)
        assert raised_at(failed.value).endswith(".py:3  sys.exit(3)")

    def test_an_interrupt_is_let_through(self, load: Load) -> None:
        with pytest.raises(KeyboardInterrupt):
            load("def f(v):\n    raise KeyboardInterrupt\n")(1)

    def test_the_line_is_the_user_s_and_not_that_of_the_library_it_calls(self, load: Load) -> None:
        with pytest.raises(ValueError, match="at least one array") as failed:
            load("import numpy as np\ndef f(v):\n    return np.stack([])\n")(1)
        assert raised_at(failed.value).endswith(".py:3  return np.stack([])")


@pytest.mark.parametrize(
    "text",
    [
        "def f(v): return v\n",
        "class F:\n    def __call__(self, v): return v\nf = F()\n",
        "import functools\nf = functools.partial(max, 1)\n",
    ],
)
def test_the_code_of_a_hook_is_found_whatever_kind_of_callable_it_is(
    load: Load, text: str, tmp_path: Path
) -> None:
    function = load(text)
    (file,) = tmp_path.glob("hook_*.py")
    assert hook_sources(function, f"{file.stem}:f", tmp_path) == [file]


class TestModulesOfTheJobsFolder:
    @pytest.fixture
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
        """Two folders, each with a hook of one name and a helper that it imports."""
        monkeypatch.setattr("sys.path", [*sys.path])
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "hook_of_both.py").write_text("import json\nfrom helper_of_both import f\n")
            (tmp_path / name / "helper_of_both.py").write_text(f"def f(): return '{name}'\n")
        return tmp_path / "one", tmp_path / "two"

    def load(self, folder: Path) -> Callable[[], str]:
        forget_hooks()
        return load_hook("hook_of_both:f", folder, "features.x.python")

    def test_each_job_gets_its_own_folders(self, folders: tuple[Path, Path]) -> None:
        for folder in (*folders, *folders):
            assert self.load(folder)() == folder.name

    def test_what_was_edited_is_read_anew(self, folders: tuple[Path, Path]) -> None:
        assert self.load(folders[0])() == "one"
        (folders[0] / "helper_of_both.py").write_text("def f(): return 'new'\n")
        assert self.load(folders[0])() == "new"

    def test_the_modules_that_a_hook_imports_there_are_its_code_too(self, folders: tuple[Path, Path]) -> None:
        function = self.load(folders[0])
        found = hook_sources(function, "hook_of_both:f", folders[0])
        assert [path.name for path in found] == ["hook_of_both.py", "helper_of_both.py"]

    def test_a_module_that_was_there_before_is_left_alone(self, folders: tuple[Path, Path]) -> None:
        self.load(folders[0])
        forget_hooks()
        assert "json" in sys.modules
        assert "helper_of_both" not in sys.modules
