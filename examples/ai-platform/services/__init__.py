"""The twelve services of the example platform; each module with a ``main`` is one of them."""
