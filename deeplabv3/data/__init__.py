"""Data sets: labels, images, the Cityscapes layout, synthetic streets, augmentation, batches."""
