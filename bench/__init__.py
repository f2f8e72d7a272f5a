"""Speed and memory on the demo catalogue: `make bench`. Ratios come from one run."""
