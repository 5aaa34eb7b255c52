"""The train component: a feature set in, a speaker-embedding model out, through any number of preemptions."""
