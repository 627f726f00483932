# SPDX-License-Identifier: Apache-2.0
"""Thin trio adapters: the kernel's FUSE channel, the mount, the loop between channel and session.

Nothing here may know what a frame says, or what binder is.
"""
