"""A command line each: what `sgmse-train` and its sisters, and the scripts of the same names, run."""
