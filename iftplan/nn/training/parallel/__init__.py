"""Several processes on one network: how they are arranged, what each holds of a layer, what is computed again."""
