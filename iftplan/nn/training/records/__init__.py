"""What a run leaves behind: metrics, checkpoints, its ledger, and whose directory it is."""
