"""One mask update by hand: fraction, whether what was dropped may grow again, the new mask, and what grew."""

WEIGHTS = [0.9, 0.1, 0.5, 0.0, 0.0, 0.3, 0.0, 0.7, 0.0, 0.0]
MASK = [1, 1, 1, 0, 0, 1, 0, 1, 0, 0]
GRADIENT = [0.2, 0.9, 0.1, 0.4, 0.8, 0.3, 0.0, 9.0, 0.6, 0.5]

# Active by size: 0, 7, 2, 5, 1. A fraction of .4 drops two, 5 and 1. Of what is not kept the gradients are
# 1: .9, 4: .8, 8: .6, 9: .5 …; 7 has the largest of all, and stays because it is kept.
TABLE = [
    (0.4, True, [0, 1, 2, 4, 7], [1, 4]),  # 1 comes back at once
    (0.4, False, [0, 2, 4, 7, 8], [4, 8]),  # it may not
    (0.2, True, [0, 1, 2, 5, 7], [1]),
    (0.2, False, [0, 2, 4, 5, 7], [4]),
    (0.0, True, [0, 1, 2, 5, 7], []),
    (1.0, True, [1, 4, 7, 8, 9], [1, 4, 7, 8, 9]),  # nothing is kept: the largest gradients of all
    (1.0, False, [3, 4, 6, 8, 9], [3, 4, 6, 8, 9]),
    (0.39, True, [0, 1, 2, 5, 7], [1]),  # ⌊5·.39⌋ = 1
]
