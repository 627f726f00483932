# SPDX-License-Identifier: Apache-2.0
"""What a snapshot is made of: plain, frozen values that refer to no live object.

Nodes, refs and buffers come in thousands and are plain tuples for that reason: a named one takes
three times as long to make. Nothing here may know how any of it is written down.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from binderwire.binder_abi import COMMANDS, RETURNS

NUMBER_MASK: Final = 0xFF  # of a word: its number, by which it is counted (_IOC_NR)

COMMANDS_COUNT: Final = 1 + max(word & NUMBER_MASK for word in COMMANDS)
RETURNS_COUNT: Final = 1 + max(word & NUMBER_MASK for word in RETURNS)

# The kinds of work, with the driver's numbers (enum binder_work_type).
TRANSACTION: Final = 1
TRANSACTION_COMPLETE: Final = 2
TRANSACTION_PENDING: Final = 3
TRANSACTION_SPAM_SUSPECT: Final = 4
RETURN_ERROR: Final = 5
NODE: Final = 6
DEAD_BINDER: Final = 7
DEAD_BINDER_AND_CLEAR: Final = 8
CLEAR_DEATH_NOTIFICATION: Final = 9
FROZEN_BINDER: Final = 10
CLEAR_FREEZE_NOTIFICATION: Final = 11


class TransactionView(NamedTuple):
    """A transaction, as one of its two processes sees it."""

    debug_id: int
    sender_pid: int
    sender_tid: int
    target_pid: int  # 0: it is gone
    target_tid: int  # 0: no thread has read it yet
    code: int
    flags: int
    nice: int
    needs_reply: bool
    elapsed_ms: int
    is_here: bool  # is it on its way to this process?
    # debug id of its node (0: a reply), bytes of data and offsets, offset in the receive area;
    # None: the buffer was freed
    buffer: tuple[int, int, int, int] | None


class WorkView(NamedTuple):
    """An item of a queue."""

    kind: int  # one of the kinds of ``work.py``
    number: int = 0  # debug id of a node, BR_ code of an error
    ptr: int = 0  # of a node
    cookie: int = 0  # of a node
    call: TransactionView | None = None


class ThreadView(NamedTuple):
    """A thread."""

    tid: int
    looper: int
    need_return: bool
    stack: list[tuple[bool, TransactionView]]  # innermost first; is it outgoing?
    todo: list[WorkView]


# Debug id, ptr, cookie; does the owner know of a strong and of a weak reference; local strong,
# local weak and internal strong count; ids of processes with a ref; queued one-way calls
NodeRow = tuple[int, int, int, bool, bool, int, int, int, tuple[int, ...], tuple[WorkView, ...]]

# Debug id, handle; is the node's owner gone; debug id of the node; strong and weak count; is there
# a death notification
RefRow = tuple[int, int, bool, int, int, int, bool]

# Debug id of its transaction, offset in the area, bytes of data, of offsets and beside them; is the
# transaction still under way
BufferRow = tuple[int, int, int, int, int, bool]


class ProcessView(NamedTuple):
    """An open file."""

    pid: int
    context: str
    threads: list[ThreadView]
    nodes: list[NodeRow]
    refs: list[RefRow]
    buffers: list[BufferRow]
    todo: list[WorkView]
    has_delivered_death: bool  # is any waiting for its BC_DEAD_BINDER_DONE?
    has_delivered_freeze: bool
    uid: int  # the opener's: only that user and root are shown pointers


class State(NamedTuple):
    """Everything that the engine keeps."""

    dead_nodes: list[NodeRow]
    processes: list[ProcessView]  # the latest first


class ObjectCount(NamedTuple):
    """One kind of object."""

    kind: str
    active: int
    total: int  # ever made


class WordCounts(NamedTuple):
    """How often each word was seen, by its number."""

    commands: list[int]
    returns: list[int]


class ProcessStatistics(NamedTuple):
    """An open file in figures."""

    pid: int
    context: str
    threads: int
    requested_threads: int
    started_threads: int
    max_threads: int
    waiting_threads: int
    free_one_way: int  # bytes
    nodes: int
    refs: int
    strong: int  # sum of all refs' counts
    weak: int
    buffers: int
    pages: tuple[int, int, int]  # with buffers in them, kept for later, not there
    pages_max: int  # how far the area was ever used
    queued_transactions: int  # that any thread may take
    words: WordCounts


class Statistics(NamedTuple):
    """What the engine has counted."""

    words: WordCounts
    objects: list[ObjectCount]
    processes: list[ProcessStatistics]  # the latest first


# The kinds of logged transactions.
CALL: Final = 0
ONE_WAY: Final = 1
REPLY: Final = 2


class LoggedTransaction(NamedTuple):
    """One entry of a log."""

    debug_id: int
    kind: int  # CALL, ONE_WAY or REPLY
    sender_pid: int
    sender_tid: int
    target_pid: int  # 0: there was none
    target_tid: int  # 0: none was chosen when it was sent
    context: str
    node_id: int  # the target's debug id; 0: none, or it was a reply
    handle: int  # what the sender called it
    data_size: int  # bytes
    offsets_size: int  # bytes
    reply: int  # BR_ code of the failure, 0: none
    param: int  # negative errno of the failure
