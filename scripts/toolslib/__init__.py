"""What the scripts share: HTTP, vector files, the screen, statistics. numpy and nothing else."""
