"""Text that does harm in reports that do not escape it."""

from __future__ import annotations

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`|*_[a](https://b)\x1b[31m\u202e @octocat #1 {{ 7*7 }}]]> -->\n::error::x"
