"""Compile the typed modules of the schedulers with mypyc, from the same sources, into a package
`tenantdl_compiled` beside the installed ones. `tenantdl.sched` and the packages in it take them
from there as long as their sources are what they were made of; otherwise plain Python runs.

    python scripts/compile_scheduler.py [FOLDER]      # default: site-packages
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
# By package, what a request passes.
MODULES = {
    "tenantdl.sched": (
        "cores correction costs queue state request served book demand placing admission scheduler"
    ),
    "tenantdl.sched.policies": "names order joint blocks planaria partition",
    "tenantdl.sched.batching": "tournament rate latency slots queue policies order batcher pace",
}
FINDER = '''"""Made by scripts/compile_scheduler.py: compiled modules and what they were made of."""

import hashlib
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# Source → its digest.
MADE_OF = {made_of!r}


def folder_of(package, path):
    """Where the compiled modules of `package` lie, if no source of any has changed and
    TENANTDL_PURE is not set: a list of one folder or none. `path`: of its sources."""
    root = Path(path[-1]).parents[package.count(".")]
    try:
        same = all(
            hashlib.sha256(Path(root, name).read_bytes()).hexdigest() == digest
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
    sources = [
        Path(*package.split("."), f"{name}.py")
        for package, names in MODULES.items()
        for name in names.split()
    ]
    made_of = {str(s): hashlib.sha256((ROOT / s).read_bytes()).hexdigest() for s in sources}
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
