"""``python -m speechbrain_clsp.cli`` is ``clsp``."""

import sys

from speechbrain_clsp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
