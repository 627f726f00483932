# SPDX-License-Identifier: Apache-2.0
"""Reference counts of one node against a model that fits on a page (N3-N6, E7).

An owner has one object; a holder, the context manager, may refer to it.  The model knows the
holder's two counts and what the owner was told; from these alone it predicts whether a call goes
through and each word that the owner reads.
"""

from __future__ import annotations

from errno import EAGAIN

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from binderwire.binder_abi import (
    BR_ACQUIRE,
    BR_DECREFS,
    BR_FAILED_REPLY,
    BR_INCREFS,
    BR_NOOP,
    BR_RELEASE,
    BR_TRANSACTION,
    BR_TRANSACTION_COMPLETE,
)
from support import bc
from support.engine_world import EngineWorld

PTR, COOKIE = 0x1000, 5
HANDLE = 1  # the holder has no other, so it is always this number


class Model:
    """Who counts what."""

    def __init__(self) -> None:
        self.strong = 0  # the holder's counts; both 0: it has no handle
        self.weak = 0
        self.told_strong = False  # what the owner knows
        self.told_weak = False
        self.pending_strong = False  # told, and not acknowledged
        self.pending_weak = False
        self.news_waits = False  # is there anything in a queue that has it look?

    @property
    def is_strong(self) -> bool:
        return self.strong > 0 or self.pending_strong

    @property
    def is_weak(self) -> bool:
        return self.is_strong or self.weak > 0 or self.pending_weak

    def read_news(self) -> list[int]:
        """Return what the owner is told now."""
        words: list[int] = []
        if not self.news_waits:
            return words
        is_strong, is_weak = self.is_strong, self.is_weak
        if is_weak and not self.told_weak:
            words.append(BR_INCREFS)
            self.pending_weak = True
        if is_strong and not self.told_strong:
            words.append(BR_ACQUIRE)
            self.pending_strong = True
        if self.told_strong and not is_strong:
            words.append(BR_RELEASE)
        if self.told_weak and not is_weak:
            words.append(BR_DECREFS)
        self.told_strong, self.told_weak, self.news_waits = is_strong, is_weak, False
        return words

    def dropped(self) -> None:
        """Something was given up: does the owner have to hear of it, or is the node gone?"""
        if not self.is_weak and not (self.told_strong or self.told_weak):
            self.news_waits = False
        elif (self.told_strong and not self.is_strong) or (self.told_weak and not self.is_weak):
            self.news_waits = True


class Counts(RuleBasedStateMachine):
    """The engine beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.world = EngineWorld()
        self.manager = self.world.open()
        self.manager.become_manager()
        self.holder = self.manager.looper()
        self.owner = self.world.open(nonblocking=True).seasoned()
        self.model = Model()

    @rule(strong=st.booleans(), kept=st.booleans())
    def send(self, *, strong: bool, kept: bool) -> None:
        """The owner sends its object; the holder frees the buffer, acquiring before if it wants."""
        model = self.model
        make = bc.binder if strong else bc.weak_binder
        self.owner.write(bc.oneway(0, bc.payload(make(PTR, COOKIE))))
        items = self.holder.read().items
        assert [item.word for item in items] == [BR_NOOP, BR_TRANSACTION]
        assert items[1].objects[0][1] == HANDLE
        if strong:
            model.strong += 1
            model.news_waits |= not model.told_strong
        else:
            model.weak += 1
            model.news_waits |= not model.told_weak
        keep = (bc.acquire if strong else bc.increfs)(HANDLE)
        self.holder.write(*([keep] if kept else []), bc.free(items[1].buffer))
        if not kept:
            self._give_up(strong=strong)

    @rule(strong=st.booleans())
    def acquire(self, *, strong: bool) -> None:
        self.holder.write((bc.acquire if strong else bc.increfs)(HANDLE))
        if strong:
            self.model.strong += self.model.strong > 0
        else:
            self.model.weak += self.model.strong + self.model.weak > 0

    @rule(strong=st.booleans())
    def release(self, *, strong: bool) -> None:
        self.holder.write((bc.release if strong else bc.decrefs)(HANDLE))
        self._give_up(strong=strong)

    def _give_up(self, *, strong: bool) -> None:
        model = self.model
        if strong and model.strong:
            model.strong -= 1
            model.dropped()
        elif not strong and model.weak:
            model.weak -= 1
            model.dropped()

    @rule()
    def read_news(self) -> None:
        """The owner reads; what it reads was in its thread's queue or in its process'."""
        words: list[int] = []
        expected = self.model.read_news()
        self.owner.write(bc.oneway(99))  # its failure ends the deferral of what its thread has
        while (outcome := self.owner.read()).errno == 0:
            words += [item.word for item in outcome.items]
        assert outcome.errno == EAGAIN
        ignored = (BR_NOOP, BR_TRANSACTION_COMPLETE, BR_FAILED_REPLY)
        assert [word for word in words if word not in ignored] == expected

    @rule(strong=st.booleans())
    def acknowledge(self, *, strong: bool) -> None:
        model = self.model
        done = (bc.acquire_done if strong else bc.increfs_done)(PTR, COOKIE)
        self.owner.write(done)
        if strong and model.pending_strong:
            model.pending_strong = False
            model.dropped()
        elif not strong and model.pending_weak:
            model.pending_weak = False
            model.dropped()

    @invariant()
    def a_call_goes_through_if_the_handle_is_strong(self) -> None:
        self.holder.write(bc.oneway(HANDLE, data_size=1 << 40))
        assert [item.word for item in self.holder.read().items] == [BR_NOOP, BR_FAILED_REPLY]
        ref = self.manager.file.process.handles.refs.get(HANDLE)
        counts = (0, 0) if ref is None else (ref.strong, ref.weak)
        assert counts == (self.model.strong, self.model.weak)

    def teardown(self) -> None:
        self.world.close()
        self.world.assert_empty()


TestCounts = Counts.TestCase
TestCounts.settings = settings(max_examples=150, stateful_step_count=40)
