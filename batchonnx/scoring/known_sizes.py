"""Batch sizes that were found on devices, kept for this user: the next run of the same measures nothing.

One JSON file in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache). Nothing depends on it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from batchonnx.planning.plan import Plan
from batchonnx.runtime.cuda import gpu_name
from batchonnx.runtime.providers import provider_named
from batchonnx.runtime.session import Model
from batchonnx.runtime.wheels import require_one_wheel
from batchonnx.storage.user_cache import cache_folder

FORMAT_VERSION = 1
MOST_SIZES = 1000
"""The oldest go first."""


def size_key(plan: Plan, model: Model) -> str:
    """All that a size depends on: model, device and its settings, ONNX Runtime, what is fed and asked for."""
    device, wheel = model.device, require_one_wheel()
    settings = {
        name: value for name, value in plan.identity.items() if name.startswith(("features.", "outputs."))
    }
    columns = [str(plan.listing.schema.field(name).type) for name in plan.columns]
    provider = provider_named(device.provider)
    name = gpu_name(device.index) if provider is not None and provider.is_nvidia else ""
    told = [plan.model.digest, device.provider, name, device.share, sorted(device.options.items())]
    told += [wheel, version(wheel)]
    return hashlib.sha256(json.dumps([*told, settings, columns]).encode()).hexdigest()


def find_size(key: str) -> int | None:
    """Rows in one call; None if they aren't known."""
    found = _read().get(key)
    return found if type(found) is int and found > 0 else None


def keep_size(key: str, rows: int) -> None:
    """Remember them; what another process remembers at the same moment may be lost."""
    sizes = _read()
    sizes.pop(key, None)
    sizes[key] = rows
    kept = dict(list(sizes.items())[-MOST_SIZES:])
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(kept))
        fresh.replace(path)


def _read() -> dict[str, object]:
    try:
        found = json.loads(_path().read_text())
    except (OSError, RuntimeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _path() -> Path:
    return cache_folder() / f"batch-rows-{FORMAT_VERSION}.json"
