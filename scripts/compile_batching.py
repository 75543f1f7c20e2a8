"""Compile the typed modules of the batching scheduler with mypyc, from the same sources, into a
package `tenantdl_compiled` beside the installed ones. `tenantdl.sched.batching` takes them from
there as long as its sources are what they were made of; otherwise it runs as plain Python.

    python scripts/compile_batching.py [FOLDER]      # default: site-packages
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("tenantdl/sched/batching")
# What a request passes.
MODULES = "tournament", "rate", "latency", "slots", "queue", "policies", "order", "batcher", "pace"
FINDER = '''"""Made by scripts/compile_batching.py: compiled modules, and what they were made of."""

import hashlib
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
MADE_OF = {made_of!r}


def folder_of(package, path):
    """Where the compiled modules of `package` lie, if its sources in `path` have not changed and
    TENANTDL_PURE is not set: a list of one folder or none."""
    try:
        same = all(
            hashlib.sha256(Path(path[0], name).read_bytes()).hexdigest() == digest
            for name, digest in MADE_OF.items()
        )
    except OSError:
        return []
    if not same or os.environ.get("TENANTDL_PURE"):
        return []
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return [str(FOLDER / package.replace(".", "/"))]
'''


def compile_modules(out: Path) -> None:
    """Write the package to `out`, aside first."""
    sources = [PACKAGE / f"{name}.py" for name in MODULES]
    made_of = {s.name: hashlib.sha256((ROOT / s).read_bytes()).hexdigest() for s in sources}
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".compiled.") as folder:
        build, lib = Path(folder, "build"), Path(folder, "lib")
        shutil.copytree(ROOT / "tenantdl", build / "tenantdl")
        setup = (
            "from setuptools import setup\n"
            "from mypyc.build import mypycify\n"
            f"files = {[str(source) for source in sources]!r}\n"
            "flags = ['--strict', '--follow-imports=silent', '--ignore-missing-imports']\n"
            "modules = mypycify([*flags, *files], opt_level='3')\n"
            "setup(name='tenantdl_compiled', packages=[], ext_modules=modules)\n"
        )
        (build / "setup.py").write_text(setup)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(lib)]
        environment = os.environ | {"CFLAGS": os.environ.get("CFLAGS", "") + " -g0"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(
            command, cwd=build, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"plain Python it is: mypyc failed: {(done.stderr or done.stdout)[-400:]}")
        (lib / "__init__.py").write_text(FINDER.format(made_of=made_of))
        if out.exists():
            shutil.rmtree(out)
        lib.rename(out)


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sysconfig.get_paths()["purelib"])
    compile_modules(place / "tenantdl_compiled")
