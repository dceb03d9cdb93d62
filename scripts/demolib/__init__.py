"""The parts of make demo: texts from apt, embeddings by LSA, measurements."""
