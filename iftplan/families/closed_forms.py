"""The built-in families' closed forms, as SymPy solved them. Generated: `python -m iftplan.families.derivation`.

A test generates this file again and compares, so that formula and code cannot disagree.
"""

# fmt: off
# ruff: noqa: E741, ARG005, N803, RUF100
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from iftplan.families.family import Form, Root
from iftplan.families.symbolic.factored import sqrt

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "wide": Form(
            cost="d·k^e·m·n",
            maskable="m·n/d",
            full=Root("k = 1/sqrt(d)", r"k = \frac{1}{\sqrt{d}}", lambda m, n, d, k, A: 1/sqrt(d)),
            outputs=Root("k = 1/d", r"k = \frac{1}{d}", lambda m, n, d, k, A: 1/d),
            products=Root("k = -(A-sqrt(A^2+4·A·d·m·n+4·d·m^2·n^2))/(2·d·m·n)", r"k = - \frac{A - \sqrt{A^{2} + 4 A d m n + 4 d m^{2} n^{2}}}{2 d m n}", lambda m, n, d, k, A: -Fraction(1, 2)*(A - sqrt(A**2 + 4*A*d*m*n + 4*d*m**2*n**2))/(d*m*n)),
            masked=lambda m, n, k, e, _k: k**e*m*n,
            fixed=lambda m, n, k, e, _k: 0,
            covers=True,
        ),
        "parallel": Form(
            cost="b·d·m·n",
            maskable="m·n/d",
            full=Root("b = 1/d", r"b = \frac{1}{d}", lambda m, n, d, k, A: 1/d),
            outputs=Root("b = 1/d", r"b = \frac{1}{d}", lambda m, n, d, k, A: 1/d),
            products=Root("b = 1/d", r"b = \frac{1}{d}", lambda m, n, d, k, A: 1/d),
            masked=lambda m, n, b, e, k: b*m*n,
            fixed=lambda m, n, b, e, k: 0,
            covers=True,
        ),
        "factorized": Form(
            cost="d·r·(m+n)",
            maskable="m·n/d",
            full=Root("r = m·n/(d·(m+n))", r"r = \frac{m n}{d \left(m + n\right)}", lambda m, n, d, k, A: m*n/(d*(m + n))),
            outputs=Root("r = m·n/(d·(m+n))", r"r = \frac{m n}{d \left(m + n\right)}", lambda m, n, d, k, A: m*n/(d*(m + n))),
            products=Root("r = m·n/(d·(m+n))", r"r = \frac{m n}{d \left(m + n\right)}", lambda m, n, d, k, A: m*n/(d*(m + n))),
            masked=lambda m, n, r, e, k: r*(m + n),
            fixed=lambda m, n, r, e, k: 0,
            covers=True,
        ),
        "doped": Form(
            cost="d·m·n+r·(m+n)",
            maskable="m·n",
            full=Root("r = m·n·s/(m+n)", r"r = \frac{m n s}{m + n}", lambda m, n, d, k, A: -m*n*(d - 1)/(m + n)),
            outputs=Root("r = m·n·s/(m+n)", r"r = \frac{m n s}{m + n}", lambda m, n, d, k, A: -m*n*(d - 1)/(m + n)),
            products=Root("r = m·n·s/(m+n)", r"r = \frac{m n s}{m + n}", lambda m, n, d, k, A: -m*n*(d - 1)/(m + n)),
            masked=lambda m, n, r, e, k: m*n,
            fixed=lambda m, n, r, e, k: r*(m + n),
            covers=False,
        ),
        "lowrank": Form(
            cost="k·r·(m+n)",
            maskable="0",
            full=Root("r = m·n/(k·(m+n))", r"r = \frac{m n}{k \left(m + n\right)}", lambda m, n, d, k, A: m*n/(k*(m + n))),
            outputs=Root("r = m·n/(k·(m+n))", r"r = \frac{m n}{k \left(m + n\right)}", lambda m, n, d, k, A: m*n/(k*(m + n))),
            products=Root("r = m·n/(k·(m+n))", r"r = \frac{m n}{k \left(m + n\right)}", lambda m, n, d, k, A: m*n/(k*(m + n))),
            masked=lambda m, n, r, e, k: 0,
            fixed=lambda m, n, r, e, k: k*r*(m + n),
            covers=False,
        ),
        "nm": Form(
            cost="d·k^e·m·n",
            maskable="m·n/d",
            full=Root("k = 1/sqrt(d)", r"k = \frac{1}{\sqrt{d}}", lambda m, n, d, k, A: 1/sqrt(d)),
            outputs=Root("k = 1/d", r"k = \frac{1}{d}", lambda m, n, d, k, A: 1/d),
            products=Root("k = -(A-sqrt(A^2+4·A·d·m·n+4·d·m^2·n^2))/(2·d·m·n)", r"k = - \frac{A - \sqrt{A^{2} + 4 A d m n + 4 d m^{2} n^{2}}}{2 d m n}", lambda m, n, d, k, A: -Fraction(1, 2)*(A - sqrt(A**2 + 4*A*d*m*n + 4*d*m**2*n**2))/(d*m*n)),
            masked=lambda m, n, k, e, _k: k**e*m*n,
            fixed=lambda m, n, k, e, _k: 0,
            covers=True,
        ),
        "monarch": Form(
            cost="k·r·(m+n)",
            maskable="0",
            full=Root("r = m·n/(k·(m+n))", r"r = \frac{m n}{k \left(m + n\right)}", lambda m, n, d, k, A: m*n/(k*(m + n))),
            outputs=Root("r = m·n/(k·(m+n))", r"r = \frac{m n}{k \left(m + n\right)}", lambda m, n, d, k, A: m*n/(k*(m + n))),
            products=Root("r = m·n/(k·(m+n))", r"r = \frac{m n}{k \left(m + n\right)}", lambda m, n, d, k, A: m*n/(k*(m + n))),
            masked=lambda m, n, r, e, k: 0,
            fixed=lambda m, n, r, e, k: k*r*(m + n),
            covers=False,
        ),
        "btt": Form(
            cost="k^(3/2)·r·(sqrt(m)·n+m·sqrt(n))",
            maskable="0",
            full=Root("r = m·n/(k^(3/2)·(sqrt(m)·n+m·sqrt(n)))", r"r = \frac{m n}{k^{\frac{3}{2}} \left(\sqrt{m} n + m \sqrt{n}\right)}", lambda m, n, d, k, A: m*n/(k**(Fraction(3, 2))*(sqrt(m)*n + m*sqrt(n)))),
            outputs=Root("r = m·n/(k^(3/2)·(sqrt(m)·n+m·sqrt(n)))", r"r = \frac{m n}{k^{\frac{3}{2}} \left(\sqrt{m} n + m \sqrt{n}\right)}", lambda m, n, d, k, A: m*n/(k**(Fraction(3, 2))*(sqrt(m)*n + m*sqrt(n)))),
            products=Root("r = m·n/(k^(3/2)·(sqrt(m)·n+m·sqrt(n)))", r"r = \frac{m n}{k^{\frac{3}{2}} \left(\sqrt{m} n + m \sqrt{n}\right)}", lambda m, n, d, k, A: m*n/(k**(Fraction(3, 2))*(sqrt(m)*n + m*sqrt(n)))),
            masked=lambda m, n, r, e, k: 0,
            fixed=lambda m, n, r, e, k: k**(Fraction(3, 2))*r*(sqrt(m)*n + m*sqrt(n)),
            covers=False,
        ),
        "kronecker": Form(
            cost="k^(3/2)·r·(sqrt(m)·n+m·sqrt(n))",
            maskable="0",
            full=Root("r = m·n/(k^(3/2)·(sqrt(m)·n+m·sqrt(n)))", r"r = \frac{m n}{k^{\frac{3}{2}} \left(\sqrt{m} n + m \sqrt{n}\right)}", lambda m, n, d, k, A: m*n/(k**(Fraction(3, 2))*(sqrt(m)*n + m*sqrt(n)))),
            outputs=Root("r = m·n/(k^(3/2)·(sqrt(m)·n+m·sqrt(n)))", r"r = \frac{m n}{k^{\frac{3}{2}} \left(\sqrt{m} n + m \sqrt{n}\right)}", lambda m, n, d, k, A: m*n/(k**(Fraction(3, 2))*(sqrt(m)*n + m*sqrt(n)))),
            products=Root("r = m·n/(k^(3/2)·(sqrt(m)·n+m·sqrt(n)))", r"r = \frac{m n}{k^{\frac{3}{2}} \left(\sqrt{m} n + m \sqrt{n}\right)}", lambda m, n, d, k, A: m*n/(k**(Fraction(3, 2))*(sqrt(m)*n + m*sqrt(n)))),
            masked=lambda m, n, r, e, k: 0,
            fixed=lambda m, n, r, e, k: k**(Fraction(3, 2))*r*(sqrt(m)*n + m*sqrt(n)),
            covers=False,
        ),
        "butterfly": Form(
            cost="2·k·r·(m+n)+64·r^2",
            maskable="0",
            full=Root("r = -(k·m+k·n-sqrt(k^2·m^2+2·k^2·m·n+k^2·n^2+64·m·n))/64", r"r = - \frac{k m + k n - \sqrt{k^{2} m^{2} + 2 k^{2} m n + k^{2} n^{2} + 64 m n}}{64}", lambda m, n, d, k, A: -Fraction(1, 64)*(k*m + k*n - sqrt(k**2*m**2 + 2*k**2*m*n + k**2*n**2 + 64*m*n))),
            outputs=Root("r = -(k·m+k·n-sqrt(k^2·m^2+2·k^2·m·n+k^2·n^2+64·m·n))/64", r"r = - \frac{k m + k n - \sqrt{k^{2} m^{2} + 2 k^{2} m n + k^{2} n^{2} + 64 m n}}{64}", lambda m, n, d, k, A: -Fraction(1, 64)*(k*m + k*n - sqrt(k**2*m**2 + 2*k**2*m*n + k**2*n**2 + 64*m*n))),
            products=Root("r = -(k·m+k·n-sqrt(k^2·m^2+2·k^2·m·n+k^2·n^2+64·m·n))/64", r"r = - \frac{k m + k n - \sqrt{k^{2} m^{2} + 2 k^{2} m n + k^{2} n^{2} + 64 m n}}{64}", lambda m, n, d, k, A: -Fraction(1, 64)*(k*m + k*n - sqrt(k**2*m**2 + 2*k**2*m*n + k**2*n**2 + 64*m*n))),
            masked=lambda m, n, r, e, k: 0,
            fixed=lambda m, n, r, e, k: 2*r*(k*m + k*n + 32*r),
            covers=False,
        ),
    }
)
