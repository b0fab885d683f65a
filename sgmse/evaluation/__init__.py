"""One checkpoint, one test set, many settings of guidance and sampler: cells, what they cost and how good they are."""
