# SPDX-License-Identifier: Apache-2.0
"""AIDL for Python: a compiler (``binderclient-aidl``), and what its code needs when it runs.

``parser`` (with ``tokens`` and grammar.lark) makes ``syntax`` of a text.  ``sources`` finds files,
``resolve`` what names mean, ``constants`` the values of expressions.  ``checks`` goes through all
of it, with the rules in ``methods`` (directions and transaction codes), ``containment`` and
``annotation_rules``; what is wrong is one of ``errors``.  ``generator`` writes Python, in which
types are those of ``python_types``, names those of ``python_names`` and lines those of ``layout``;
``output`` puts it into files, ``command`` is the command line.

``runtime`` is what that Python imports, with ``travel`` and ``holder``: these know none of the
others, and need no library.
"""
