"""Hatch's build hook: whoever installs core gets the meter in C if it can be compiled, and otherwise the one in Python.

OPENRTC_INTROSPECT_COMPILED=0 in the environment has nothing compiled, =1 makes it an error if it cannot be.
"""

from __future__ import annotations

import os
import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "OPENRTC_INTROSPECT_COMPILED"


class MeterBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        wanted = os.environ.get(VARIABLE, "")
        if wanted not in ("", "0", "1"):
            self.app.abort(f"{VARIABLE}={wanted} is not accepted: set it to 0, 1, or not at all")
        script = runpy.run_path(str(Path(self.root, "compile_meter.py")))
        try:
            if version == "editable":  # imports from the source tree
                script["remove" if wanted == "0" else "install"]()
            elif wanted != "0":
                self._temporary = tempfile.TemporaryDirectory()
                built = script["compile_into"](Path(self._temporary.name))
                build_data["force_include"][str(built)] = f"openrtc_introspect_core/_native/{built.name}"
                build_data["pure_python"] = False
                platform = self.build_config.builder.get_best_matching_tag().rpartition("-")[2]
                build_data["tag"] = f"cp311-abi3-{platform}"
        except (script["CannotCompile"], OSError) as error:
            if wanted:
                install = "install a C compiler and Python's headers (on Debian: apt install gcc python3-dev), or "
                help = install if isinstance(error, script["CompilerFailed"]) else ""
                self.app.abort(f"{VARIABLE}={wanted}, but {error}: {help}do not set {VARIABLE}")
            self.app.display_warning(f"openrtc-introspect-core: {error}: the meter in Python is installed")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        temporary = getattr(self, "_temporary", None)
        if temporary is not None:
            temporary.cleanup()
