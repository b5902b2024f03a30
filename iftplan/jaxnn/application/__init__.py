"""Plans applied to JAX models: their structure, and the audit of what came of it."""
