"""What a checkpoint makes of its noise reference: used, ignored or leaked; where, when and how far from training."""
