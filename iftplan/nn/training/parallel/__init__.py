"""The engine of a run and its processes: how they are arranged, what each holds of a layer, what is computed again."""
