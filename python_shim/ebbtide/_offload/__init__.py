"""Activations that leave the device and come back: mini-sequences, swap, recomputation.

`ebbtide.offload` and `ebbtide.tag` are the public names. Nothing here is imported before one of
them, or EBBTIDE_OFFLOAD, asks for it.
"""
