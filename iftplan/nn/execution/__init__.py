"""Sparse weights × dense activations on CPUs: kernels, autograd functions and modules.

Needs numba (`pip install 'iftplan[bench]'`), which compiles the kernels for the machine at hand; no C compiler.
"""
