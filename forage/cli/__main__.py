"""`python -m forage.cli`: what the supervisor starts services with."""

import sys

from forage.cli import main

sys.exit(main())
