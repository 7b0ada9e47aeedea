"""The benchmark: the product's worker beside a floor and its peers, in the same run on the same machine."""
