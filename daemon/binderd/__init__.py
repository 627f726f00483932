# SPDX-License-Identifier: Apache-2.0
"""binderd: Android's binder driver as a user-space daemon."""
