"""The feature-extractor component: audio in, a compact, verified, resumable feature set out."""
