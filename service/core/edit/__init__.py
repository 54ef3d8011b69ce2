"""What if: counterfactuals, traversals, interpolations and samples in latent space."""
