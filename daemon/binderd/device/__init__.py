# SPDX-License-Identifier: Apache-2.0
"""Where FUSE requests meet the binder engine.  No os, no trio."""
