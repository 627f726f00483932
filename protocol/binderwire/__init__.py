# SPDX-License-Identifier: Apache-2.0
"""Wire formats of binder, FUSE and CUSE: declared once with construct, everything else derived."""
