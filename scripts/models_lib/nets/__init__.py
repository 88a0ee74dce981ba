"""One network per file: `make(seed, threads) -> Made`."""
