"""The parts of make demo: texts from apt, embeddings by LSA, HTTP to the daemon, the screen."""
