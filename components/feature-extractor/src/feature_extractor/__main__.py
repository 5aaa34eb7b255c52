"""`python -m feature_extractor`."""

import sys

from feature_extractor.cli import main

sys.exit(main())
