"""``python -m vdm_lite.training``, the same as ``vdm-lite train``."""

import sys

from vdm_lite.command import train

if __name__ == "__main__":
    sys.exit(train())
