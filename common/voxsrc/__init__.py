"""Speaker verification for VoxSRC: what two or more components share."""

__version__ = "0.1.0"
