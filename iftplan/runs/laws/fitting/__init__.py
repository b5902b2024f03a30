"""Laws fitted to runs of one's own, with how well the runs determine each constant."""
