"""The bundled zoo without a framework: what it holds, and the specs and costs that are kept of it."""
