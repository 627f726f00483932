# SPDX-License-Identifier: Apache-2.0
"""``IncomingCall``: a call for an object of this process, from its arrival to its answer.

To the driver it is the thread that received it that answers; who runs the handler, and in which
thread, is the flavour's business.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from binderclient import android
from binderclient.errors import DeviceError, ParcelError, RemoteException
from binderclient.faults import answer_to, error_reply
from binderclient.objects import Caller
from binderclient.parcel import Parcel
from binderwire.binder_abi import TF_CLEAR_BUF, TF_ONE_WAY

if TYPE_CHECKING:
    from binderclient.connection import Delivery
    from binderclient.objects import Service
    from binderclient.session import Session
    from binderclient.threads import BinderThread

_log = logging.getLogger("binderclient")


class IncomingCall:
    """A call that a thread has received.

    Args:
        session: through which it came.
        thread: that received it.
        delivery: what came.
        data: the request.
        service: the called object; None if it is gone.
    """

    __slots__ = ("data", "delivery", "is_answered", "reply", "service", "session", "thread")

    def __init__(
        self,
        session: Session,
        thread: BinderThread,
        delivery: Delivery,
        data: Parcel,
        service: Service | None,
    ) -> None:
        self.session = session
        self.thread = thread
        self.delivery = delivery
        self.data = data
        self.service = service
        self.reply = Parcel()  # for the handler to write into
        self.is_answered = False

    def caller(self) -> Caller:
        """Return who has sent it."""
        delivery = self.delivery
        one_way = bool(delivery.flags & TF_ONE_WAY)
        return Caller(delivery.sender_pid, delivery.sender_euid, one_way)

    def answer(self, error: BaseException | None) -> None:
        """Give the request back, and queue the reply for the next write of the thread; once.

        Args:
            error: what the handler raised; None: ``reply`` is what it answers.

        Raises:
            DeviceError: the device was closed, or its driver is gone.
        """
        self.is_answered = True
        delivery, thread = self.delivery, self.thread
        reply, flags = self._reply(error)
        try:
            self.data.close()
        except ParcelError as failure:
            _log.error("code %#x keeps using its request: %s", delivery.code, failure)
        if delivery.flags & TF_ONE_WAY or not thread.state.serving:
            return  # in the latter case the thread has left the driver, which has told the caller
        flags |= delivery.flags & TF_CLEAR_BUF
        try:
            thread.reply(reply, self.session, flags)
        except DeviceError:
            raise
        except Exception as failure:  # what the program has put into it, and as faulty as it may be
            _log.error("the reply to code %#x cannot be sent: %s", delivery.code, failure)
            reply, flags = error_reply(RemoteException(status=android.STATUS_BAD_VALUE))
            thread.reply(reply, self.session, flags)

    def _reply(self, error: BaseException | None) -> tuple[Parcel, int]:
        if self.service is None:
            return error_reply(RemoteException(status=android.STATUS_DEAD_OBJECT))
        if error is None:
            return self.reply, 0
        return answer_to(error, self.service, self.delivery.code, self.caller())
