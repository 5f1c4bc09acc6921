"""``python -m vdm_lite.cli``, the same as ``vdm-lite``."""

import sys

from vdm_lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
