"""dSprites: the data set, its rendering, and how well the rendering matches the original."""
