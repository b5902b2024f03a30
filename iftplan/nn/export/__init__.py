"""Ways out of masks: plain weights, condensed layers and tensor cores."""
