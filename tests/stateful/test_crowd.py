# SPDX-License-Identifier: Apache-2.0
"""The whole engine under a crowd of clients, as a state machine: failures shrink to few steps."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from support.crowd import Crowd

CHOICES = st.integers(0, 999)


class Clients(RuleBasedStateMachine):
    """Each rule is one thing that a client may do; the crowd checks what comes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.crowd = Crowd(lambda _: 0)

    def _do(self, data: st.DataObject, event: str) -> None:
        self.crowd.pick = lambda count: data.draw(CHOICES) % count
        getattr(self.crowd, event)()
        self.crowd.settle()

    @initialize(data=st.data())
    def first(self, data: st.DataObject) -> None:
        self._do(data, "join")

    @rule(data=st.data(), event=st.sampled_from(["join", "hire", "keep", "watch", "fork"]))
    def grow(self, data: st.DataObject, event: str) -> None:
        self._do(data, event)

    @rule(data=st.data(), event=st.sampled_from(["call", "serve", "act"]))
    def talk(self, data: st.DataObject, event: str) -> None:
        self._do(data, event)

    @rule(data=st.data(), event=st.sampled_from(["freeze", "nag", "follow", "wait", "wonder"]))
    def disturb(self, data: st.DataObject, event: str) -> None:
        self._do(data, event)

    @rule(data=st.data(), event=st.sampled_from(["serve", "poll", "interrupt"]))
    def wait(self, data: st.DataObject, event: str) -> None:
        self._do(data, event)

    @rule(data=st.data(), event=st.sampled_from(["leave", "unmap", "die"]))
    def shrink(self, data: st.DataObject, event: str) -> None:
        self._do(data, event)

    def teardown(self) -> None:
        self.crowd.pick = lambda _: 0
        self.crowd.end()


TestClients = Clients.TestCase
TestClients.settings = settings(max_examples=60, stateful_step_count=40)
