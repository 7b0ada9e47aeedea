"""Compiles what a gateway imports: with a read-only root it could not keep that, and would compile at every start.

Also the part of the standard library that it uses, which the official Python images come without."""

import compileall
import importlib
import sys
from pathlib import Path
from py_compile import PycInvalidationMode, compile

HERE = Path("/srv/carillon")
STARTED = (
    "app.main",
    "app.cli",
    "app.server.alive",
    "app.server.worker",
    "gunicorn.app.wsgiapp",
    "uvloop",
    "httptools",
)

sys.path.insert(0, str(HERE))
for name in STARTED:
    importlib.import_module(name)

# By the hash of the source, not by its time, which differs in every build. Of the application the hash is looked at, so
# that a file which a derived image or a mounted volume puts in the place of app/hooks.py counts.
compileall.compile_dir(HERE / "app", quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH)
compileall.compile_dir(HERE / "venv", quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
imported = {getattr(module, "__file__", None) or "" for module in list(sys.modules.values())}
for file in sorted(file for file in imported if file.endswith(".py") and not file.startswith(str(HERE))):
    compile(file, doraise=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
