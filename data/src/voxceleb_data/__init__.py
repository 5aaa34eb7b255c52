"""VoxCeleb 1 & 2 and own recordings: download, verify, list, and cut down for local work."""
