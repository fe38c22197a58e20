"""The Ray engine: policies that know no cluster, the actor, and the glue between them."""
