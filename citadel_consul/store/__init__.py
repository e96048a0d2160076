"""A stack as it lies in Consul: keys, documents, the cache that watches feed, and how an operation is requested."""
