"""Timing layers side by side: dense, masked-dense, torch's sparse layouts, and kernels of ours."""
