"""The room of commands: `valuedrift`, the entry points of MLproject and their scripts, all from one table.

``commands`` says which there are, ``main`` parses and reports, ``jobs`` has what each does, ``generate`` writes the
files that repeat the table.
"""
