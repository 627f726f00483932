# SPDX-License-Identifier: Apache-2.0
"""A machine with Linux's own binder driver, in QEMU. README.md explains it."""
