"""What is wrong with whole data sets, and cleaned copies of them."""
