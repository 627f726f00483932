# SPDX-License-Identifier: Apache-2.0
"""AIDL for Python: a compiler (``binderclient-aidl``), and what its code needs when it runs.

``parser`` makes ``syntax`` of a text, ``sources`` finds files, ``resolve`` the meaning of names,
``constants`` the value of expressions, ``checks`` has the language's rules, ``generator`` writes
Python. ``runtime`` is what that Python imports: it knows none of the others, and needs no library.
"""
