# SPDX-License-Identifier: Apache-2.0
"""What is going on inside, as files: the text of the driver's logs, and the tree that holds them.

``text.py`` and ``tree.py`` are pure; ``fs.py`` shows the tree through pyfuse3 and is the only place
that knows it.
"""
