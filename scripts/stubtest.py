"""Compares the native module's stub with the module, by mypy's stubtest.

stubtest reports success for a package without ``py.typed``, so the marker is asserted first.
"""

import subprocess
import sys
from pathlib import Path

import rondel

package = Path(rondel.__file__).parent
if not (package / "py.typed").exists():
    sys.exit(f"{package} has no py.typed: stubtest would check nothing")
allowed = Path(__file__).with_name("stubtest.allow")
command = [sys.executable, "-m", "mypy.stubtest", "rondel._rondel", "--allowlist", str(allowed)]
command.append("--ignore-unused-allowlist")  # some entries are of one Python version
sys.exit(subprocess.run(command, check=False).returncode)
