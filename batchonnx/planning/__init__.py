"""What will happen: the listing, the contract, the shards. Decides everything, scores nothing."""
