"""Files that are whole or not there: checkpoints and stores of runs."""
