"""Drawn pictures: animals, backgrounds, pictures of other things, and the data set made of them."""
