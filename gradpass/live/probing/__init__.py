"""What `gradpass.probe` runs: one forward and one backward pass, with statistics of every value on the way."""
