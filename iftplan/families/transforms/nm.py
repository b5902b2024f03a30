"""N:M Wide: Sparse Wide whose masks keep N of every M weights along the inputs (arXiv 2303.11525, Table 11).

    k**e·m·n·d = m·n        d = N/M        k = d**(-1/e)

The density is fixed by the pattern, so only the widths are left to choose and a residual may stay.
"""

from dataclasses import replace

from iftplan.families.transforms.wide import WIDE

NM = replace(WIDE, name="nm", title="N:M Wide", source="arXiv 2303.11525, Table 11")
