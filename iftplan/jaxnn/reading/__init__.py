"""JAX models read into specs, and their widths."""
