"""Tests of tables, pages and the formats that they are written in."""
