"""The sections of docs/validity.md, a file each; `SECTIONS` in benchmarks/validity.py has their order."""
