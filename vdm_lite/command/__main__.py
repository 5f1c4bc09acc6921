"""``python -m vdm_lite.command``, the same as ``vdm-lite``."""

import sys

from vdm_lite.command import main

if __name__ == "__main__":
    sys.exit(main())
