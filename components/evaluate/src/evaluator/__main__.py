"""Lets `python -m evaluator` run the command."""

import sys

from evaluator.cli import main

sys.exit(main())
