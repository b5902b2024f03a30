"""Files of sparse networks: kept values and the codes of masks, in the safetensors format."""
