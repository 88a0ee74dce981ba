"""Kernel templates: generators of machine code for convolutions and what stands between them."""
