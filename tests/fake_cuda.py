"""NVIDIA's driver and libraries as far as it takes to be asked and to refuse: compiled here, from C.

The driver answers as the environment tells: FAKE_CU_INIT (cuInit's code), FAKE_CU_VERSION (12040 for CUDA
12.4), FAKE_CU_GPUS (how many). Whatever computes isn't there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

_DRIVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int told(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
int cuInit(unsigned flags) { return told("FAKE_CU_INIT", 0); }
int cuDriverGetVersion(int *version) { *version = told("FAKE_CU_VERSION", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = told("FAKE_CU_GPUS", 1); return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Fake GPU", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 8UL << 30; return 0; }
int cuDeviceGetPCIBusId(char *bus, int size, int device) {
    return snprintf(bus, size, "0000:%02X:00.0", 0x3b + device) < 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)1; return 0; }
int cuCtxPushCurrent_v2(void *context) { return 0; }
int cuCtxPopCurrent_v2(void **context) { *context = (void *)1; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = 4UL << 30; *total = 8UL << 30; return 0; }
int cuTensorMapEncodeTiled(void) { return 801; }
int cuGetProcAddress_v2(const char *name, void **found, int version, unsigned long long flags, int *status) {
    *found = dlsym(dlopen("libcuda.so.1", RTLD_LAZY), name);
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : 500;
}
int cuGetProcAddress(const char *name, void **found, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, found, version, flags, 0);
}
"""

_SYMBOL = re.compile(r" U (\w+)@(libcublas(?:Lt)?\.so\.\d+)$", re.MULTILINE)


def driver(folder: Path) -> Path:
    """A folder with the driver's library. Skips the test where there is no compiler."""
    return _compile(folder, "libcuda.so.1", _DRIVER)


def libraries(folder: Path, provider: Path, *, cudnn: bool) -> Path:
    """What ONNX Runtime's provider links of CUDA's mathematics, by its symbols; cuDNN if it is to be there.

    provider: libonnxruntime_providers_cuda.so.
    """
    wanted: dict[str, list[str]] = {}
    for symbol, library in _SYMBOL.findall(_told(["nm", "-D", "--undefined-only", str(provider)])):
        wanted.setdefault(library, []).append(symbol)
    assert len(wanted) == 2, "cublas and cublasLt"
    for library, symbols in wanted.items():
        _compile(folder, library, "\n".join(f"int {name}(void) {{ return 1; }}" for name in symbols), library)
    for library in ("libcurand.so.10", *(["libcudnn.so.9"] if cudnn else [])):
        _compile(folder, library, "")
    return folder


def _compile(folder: Path, library: str, source: str, version: str = "") -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler here")
    folder.mkdir(exist_ok=True)
    code, versions = folder / "code.c", folder / "versions"
    code.write_text(source)
    versions.write_text(f"{version} {{ *; }};")
    how = [f"-Wl,--version-script={versions}"] if version else []
    target = ["-o", str(folder / library), f"-Wl,-soname,{library}"]
    _told([compiler, "-shared", "-fPIC", "-w", str(code), *how, *target, "-ldl"])
    return folder


def _told(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
