"""`python -m openrtc_introspect_core SCRIPT …`: a Python program, with introspection of its event loops."""

from openrtc_introspect_core._run.command import main

if __name__ == "__main__":
    main()
