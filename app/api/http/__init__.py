"""Rules that hold at every address: requests, input, problems, pagination."""
