"""`python -m streamlimit`: the same as the `streamlimit` command."""

import sys

from streamlimit.cli import main

sys.exit(main())
