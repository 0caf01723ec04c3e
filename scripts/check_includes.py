"""Fails on an include that the module table of CMakeLists.txt does not allow.

Ours: `#include "module/file.h"` only of the module itself and of what it depends on, directly or not; `mlxs/` is open to all.
Others': a package's headers only where its mlxs:: name stands in LIBS (or in that of a dependency); device toolkits only inside
their backend.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')

# Header prefix → the package name that a module must have in LIBS.
PACKAGES = {
    "archive.h": "libarchive",
    "archive_entry.h": "libarchive",
    "boost/": "boost",
    "CLI/": "cli11",
    "curl/": "curl",
    "editline/": "edit",
    "histedit.h": "edit",
    "hiredis/": "hiredis",
    "mlxs_text.h": "rust",
    "nlohmann/": "json",
    "openssl/": "crypto",
    "prometheus/": "prometheus",
    "spdlog/": "spdlog",
    "yaml-cpp/": "yaml",
}
# Header prefix → the only folder that may include it.
DEVICE_HEADERS = {
    "mlx/": "backend/mlx",
    "cuda": "backend/cuda",
    "cublas": "backend/cuda",
    "nccl": "backend/cuda",
    "Metal/": "backend/mlx",
}


def module_table(cmake: str) -> dict[str, tuple[set[str], set[str]]]:
    """name → (modules, packages) that it may include, dependencies of dependencies among them."""
    direct: dict[str, tuple[set[str], set[str]]] = {}
    for name, rest in re.findall(r"^mlxs_module\((\w+)([^)]*)\)", cmake, re.MULTILINE):
        depends, _, libs = rest.partition("LIBS")
        packages = {lib.removeprefix("mlxs::") for lib in libs.split()}
        direct[name] = (set(depends.replace("DEPENDS", "").split()), packages)

    def closure(name: str) -> tuple[set[str], set[str]]:
        modules, packages = {name}, set(direct[name][1])
        for dependency in direct[name][0]:
            below = closure(dependency)
            modules |= below[0]
            packages |= below[1]
        return modules, packages

    return {name: closure(name) for name in direct}


def violation(folder: str, header: str, table: dict[str, tuple[set[str], set[str]]]) -> str | None:
    """Why a file in src/`folder` may not include `header`; None if it may."""
    module = folder.split("/")[0]
    if module not in table:
        return f"src/{module} is not a module of CMakeLists.txt"
    modules, packages = table[module]
    for prefix, only in DEVICE_HEADERS.items():
        if header.startswith(prefix) and not (folder == only or folder.startswith(only + "/")):
            return f"{header} belongs to src/{only} alone"
    for prefix, package in PACKAGES.items():
        if header.startswith(prefix) and package not in packages:
            return f"{module} does not list mlxs::{package} in CMakeLists.txt"
    target = header.split("/")[0]
    if "/" in header and target in table and target not in modules:
        return f"{module} may not include {target} (it may: {', '.join(sorted(modules))})"
    return None


def main() -> int:
    table = module_table((ROOT / "CMakeLists.txt").read_text())
    found = 0
    sources = [path for path in (ROOT / "src").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh", ".mm"}]
    for path in sorted(sources):
        folder = path.parent.relative_to(ROOT / "src").as_posix()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            reason = match and violation(folder, match[2], table)
            if reason:
                print(f"{path.relative_to(ROOT)}:{number}: {reason}", file=sys.stderr)
                found += 1
    for path in sorted((ROOT / "include").rglob("*.h")):  # the public headers need only the standard library
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if match and match[1] == '"' and not match[2].startswith("mlxs/"):
                where = f"{path.relative_to(ROOT)}:{number}"
                print(f"{where}: public headers include only mlxs/ and the standard library", file=sys.stderr)
                found += 1
    if not sources:
        print("check_includes: no source found", file=sys.stderr)
    return 1 if found or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
