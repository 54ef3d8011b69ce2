"""dSprites: the dataset, rendered, and how well its rendering matches the original."""
