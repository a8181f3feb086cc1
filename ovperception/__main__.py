"""``python -m ovperception`` is the same as ``ovp``."""

import sys

from ovperception.cli import main

sys.exit(main())
