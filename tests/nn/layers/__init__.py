"""Tests of the layers that planned networks are made of."""
