"""From a data set dict to what the model gets: images, augmentation, targets."""
