# SPDX-License-Identifier: Apache-2.0
"""``ReceivedParcels``: the buffers of one session that the program has not freed yet.

After the end of the driver they can still be read, as their pages stay mapped until the last view
is dropped; there is only no driver any more that they could be given back to.
"""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING

from binderclient.errors import ParcelError
from binderclient.extension import close_all
from binderclient.parcel import Parcel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from binderclient.connection import Delivery
    from binderclient.contents import Owner
    from binderclient.driver import Driver


class ReceivedParcels:
    """The parcels that came through a driver and were not freed."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._parcels: dict[int, tuple[weakref.ref[Parcel], int]] = {}  # by buffer address
        self._is_ours = True

    def wrap(self, delivery: Delivery, owner: Owner) -> Parcel:
        """Return the parcel of a delivery.

        Raises:
            DeviceError: the driver went, or the device was closed, since it came.
            ProtocolError: it is not inside of the mapping.
        """
        view = self._driver.view(delivery.buffer, delivery.data_size)
        offsets: Sequence[int] = ()
        if delivery.offsets_size:
            table = self._driver.view(delivery.offsets, delivery.offsets_size)
            offsets = table.cast("Q").tolist()
        parcel = Parcel(view, offsets=offsets, owner=owner, address=delivery.buffer)
        self._parcels[delivery.buffer] = (weakref.ref(parcel), delivery.data_size)
        return parcel

    def forget(self, address: int, descriptors: Sequence[int]) -> int | None:
        """Let go of a parcel, and close the descriptors that nobody took from it.

        Returns:
            The size of its data in bytes; None if it was freed already, or is the parent's.
        """
        if not self._is_ours:
            return None
        if descriptors:
            close_all(descriptors)
        kept = self._parcels.pop(address, None)
        return None if kept is None else kept[1]

    def close(self) -> None:
        """Close all parcels, but for those of which the program still uses a view."""
        for reference, _size in list(self._parcels.values()):
            parcel = reference()
            if parcel is not None:
                with contextlib.suppress(ParcelError):
                    parcel.close()

    def disown(self) -> None:
        """For a forked child: forget all parcels, as their buffers are the parent's to free."""
        self._is_ours = False
