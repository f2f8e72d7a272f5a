"""`make demo`: the whole loop on the demo catalogue, each page made by commands you can run."""
