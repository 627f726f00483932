#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# debian.sh - makes a minimal Debian system, for root.sh and for the machine's debian.py. As root.
#
#   debian.sh SUITE TARGET PACKAGES   TARGET: a folder or a tar file; PACKAGES: beside the essential
#                                     ones, with commas
#
# It is fetched from $MIRROR, or where apt looks.
set -euo pipefail
exec mmdebstrap --quiet --variant=minbase --include="$3" "$1" "$2" ${MIRROR:+"$MIRROR"}
