"""Models, augmentation, cached features and the loop that trains."""
