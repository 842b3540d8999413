"""Tests of each launcher find the contract of all."""
