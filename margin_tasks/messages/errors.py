"""The error of a message that cannot be read or must not be sent."""

from __future__ import annotations

from margin_tasks.contracts.failures import FailureReason, MarginError


class MessageError(MarginError):
    """A message is refused: MESSAGE_UNREADABLE when it is no safe XML, MESSAGE_INVALID when it says what it must not.

    ``element`` is the path of the element that breaks a rule (``MrgnCallRspn/AgrdAmtDueToA``) and ``line`` its line in
    the document, from 1; both are part of the message text, and empty or 0 where they are not known.
    """

    def __init__(self, reason: FailureReason, message: str, *, element: str = "", line: int = 0) -> None:
        where = ", ".join(filter(None, (f"element {element}" if element else "", f"line {line}" if line else "")))
        super().__init__(reason, f"{where}: {message}" if where else message)
        self.detail = message
        self.element = element
        self.line = line


def unreadable(message: str, *, line: int = 0) -> MessageError:
    """The error of a document that is no safe XML."""
    return MessageError(FailureReason.MESSAGE_UNREADABLE, message, line=line)


def invalid(message: str, *, element: str = "", line: int = 0) -> MessageError:
    """The error of a document that breaks its schema or a rule of its business."""
    return MessageError(FailureReason.MESSAGE_INVALID, message, element=element, line=line)
