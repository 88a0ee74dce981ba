"""`python -m ort_optim`."""

import sys

from ort_optim.cli import main

sys.exit(main())
