"""Hatch's build hook: with OPENRTC_INTROSPECT_COMPILED=1 in the environment the wheel has the step meter in C as well.

Without it, the wheel is the pure one that every platform can install: nobody needs a compiler who does not ask for it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "src/openrtc_introspect_core/_step_meter.c"
MODULE = "openrtc_introspect_core._step_meter"


class CompileStepMeter(BuildHookInterface[Any]):
    def dependencies(self) -> list[str]:
        return ["setuptools >= 77"] if self._asked_for() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if not self._asked_for() or self.target_name != "wheel":
            return
        from setuptools import Extension
        from setuptools.command.bdist_wheel import get_platform
        from setuptools.command.build_ext import build_ext
        from setuptools.dist import Distribution

        self._temporary = tempfile.TemporaryDirectory()
        extension = Extension(MODULE, [str(Path(self.root, SOURCE))], py_limited_api=True)
        command = build_ext(Distribution({"ext_modules": [extension]}))
        command.build_lib = command.build_temp = self._temporary.name
        command.ensure_finalized()
        command.run()
        built = Path(command.get_ext_fullpath(MODULE))
        # An editable install imports from the source tree.
        target = Path(self.root, SOURCE).parent if version == "editable" else Path("openrtc_introspect_core")
        build_data["force_include"][str(built)] = str(target / built.name)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{get_platform(None).replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        temporary = getattr(self, "_temporary", None)
        if temporary is not None:
            temporary.cleanup()

    def _asked_for(self) -> bool:
        return os.environ.get("OPENRTC_INTROSPECT_COMPILED") == "1"
