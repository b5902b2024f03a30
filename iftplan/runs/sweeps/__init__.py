"""Many runs: grids, searches and the queue that workers share."""
