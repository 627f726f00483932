# SPDX-License-Identifier: Apache-2.0
"""Differential fuzzing: random scripts on the engine and on Linux's own driver."""
