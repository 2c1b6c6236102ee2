"""Pictures drawn by the library: animals, backgrounds, other things, and the sample dataset made of them."""
